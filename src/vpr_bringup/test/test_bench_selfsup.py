"""The bench of self-supervised learning as one run, on made-up streets, and gone on with."""

import json
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

pytest.importorskip("vpr_interfaces", reason="the workspace is not built and sourced")
sys.path.append(str(Path(__file__).resolve().parents[2] / "vpr" / "test"))

from made_up_drives import small_embedding, small_training, write_drive

from vpr.evaluation import selfsup
from vpr.evaluation.kept_rows import KeptRowsError
from vpr.learning.descriptor import train_descriptor
from vpr_bringup import bench_selfsup
from vpr_bringup.bench_selfsup import MARKERS, Sizes, run_bench

SIZES = Sizes(range(2), range(2, 3), range(3, 6), range(6, 8), 0, (200,))


class Cut(Exception):
    """The run was killed."""


@pytest.fixture
def small(monkeypatch):
    """Streets instead of towns, a small training, no pictures, nothing timed: what was trained."""
    trained = []
    embedding, training = small_embedding(), small_training()

    def make_town(folder, seed):
        write_drive(folder, street=seed, drives=(0, 1), places=30)
        (folder / "map.png").touch()

    def train(*arguments):
        trained.append(arguments[1].name)
        return train_descriptor(*arguments, progress=False)

    monkeypatch.setattr(bench_selfsup, "make_town", make_town)
    monkeypatch.setattr(bench_selfsup, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setattr(bench_selfsup.EmbeddingConfig, "from_file", lambda **_: embedding)
    monkeypatch.setattr(bench_selfsup.FineTuningConfig, "from_file", lambda **_: training)
    monkeypatch.setattr(bench_selfsup, "train_descriptor", train)
    monkeypatch.setattr(bench_selfsup, "speed", lambda *_: [])
    for part in ("_draw_curves", "_draw_drive", "pictures"):
        monkeypatch.setattr(selfsup, part, MagicMock(return_value={}))
    return trained


class InThisProcess:
    """Stands in for a pool of processes."""

    def __init__(self, **_):
        self.map = map

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_a_run_that_was_cut_short_goes_on_and_writes_the_table(small, tmp_path, monkeypatch):
    out, readme = tmp_path / "out", tmp_path / "README.md"
    readme.write_text(f"before\n{MARKERS[0]}\nold\n{MARKERS[1]}\nafter\n")

    def killed(*_):
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(bench_selfsup, "real_images", killed)
        with pytest.raises(Cut):
            run_bench(out, SIZES, readme)
    assert small == ["towns.safetensors"]
    assert "old" in readme.read_text()
    kept = json.loads((out / "rows.json").read_text())["rows"]
    assert {"training", "recognition", "sequences", "curves", "drive"} <= kept.keys()
    run_bench(out, SIZES, readme)
    assert small == ["towns.safetensors"]  # not trained again
    table = readme.read_text()
    assert table.startswith("before\n")
    assert table.endswith("after\n")
    assert "| 2 / 1 / 3 / 2 |" in table
    assert "exact index of 200 places" in table
    with pytest.raises(KeptRowsError, match="made with sizes"):
        run_bench(out, Sizes(range(1), *list(vars(SIZES).values())[1:]), None)
