"""The bench goes on behind its last whole section, and begins anew once it came to its end."""

import json

import pytest

pytest.importorskip("vpr_interfaces", reason="the workspace is not built and sourced")

from vpr.evaluation.kept_rows import KeptRowsError
from vpr_bringup import bench
from vpr_bringup.bench_lines import Line


class Cut(Exception):
    """The run was killed."""


@pytest.fixture
def sections(monkeypatch, tmp_path):
    """Two sections in place of the real ones, the second killed at first; what was asked."""
    asked = []

    def section(name):
        def measure(_data, _out, details):
            asked.append(name)
            if asked == ["first", "second"]:
                raise Cut
            details[name] = {"p50": len(asked)}
            return [Line(f"{name} asked", str(len(asked)), "-", "-")]

        return measure

    monkeypatch.setattr(bench, "SECTIONS", {name: section(name) for name in ("first", "second")})
    monkeypatch.setenv("VPR_DATA", str(tmp_path))
    return asked


def test_a_run_that_was_stopped_goes_on_and_a_whole_one_begins_anew(sections, tmp_path):
    out, readme = tmp_path / "out", tmp_path / "README.md"
    readme.write_text(f"before\n{bench.MARKERS[0]}\nold\n{bench.MARKERS[1]}\nafter\n")
    with pytest.raises(Cut):
        bench.run_bench(out, readme)
    assert "old" in readme.read_text()
    bench.run_bench(out, readme)
    assert sections == ["first", "second", "second"]
    results = json.loads((out / "results.json").read_text())
    assert [line["ours"] for line in results["lines"]] == ["1", "3"]
    assert results["first"] == {"p50": 1}
    assert readme.read_text().startswith("before\n")
    assert "| second asked | 3 | - | - |\n<!-- results: end -->\nafter" in readme.read_text()
    bench.run_bench(out, None)
    assert sections[3:] == ["first", "second"]


def test_what_was_measured_without_the_data_sets_is_not_gone_on_with(
    sections, tmp_path, monkeypatch
):
    with pytest.raises(Cut):
        bench.run_bench(tmp_path / "out", None)
    monkeypatch.setenv("VPR_DATA", str(tmp_path / "none"))
    with pytest.raises(KeptRowsError, match="made with data"):
        bench.run_bench(tmp_path / "out", None)
