import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr.evaluation.report import (
    UNKNOWN,
    LinkedFile,
    Picture,
    key_figures,
    write_report,
)

SUMMARY: dict[str, Any] = {
    "verified_precision": 1.0,
    "revisit_recall": 0.8347,
    "naive_precision": 0.61,
    "ate_before_m": 10.0,
    "ate_after_m": 2.5,
    "keyframes": 1412,
    "keyframes_lost": 0,
    "rejected_by_reason": {"pose_implausible": 2, "too_few_inliers": 63},
    "latency_ms": {
        "sequence_matching": {"p50": 1.25, "p95": 3.0},
        "end_to_end": {"p50": 48.2, "p95": 81.4},
    },
}


def test_key_figures_say_what_was_measured() -> None:
    shown = {figure.name: figure for figure in key_figures(SUMMARY)}
    assert shown["Precision of verified closures"].value == "100 %"
    assert shown["Precision of verified closures"].note.endswith("61 %")
    assert shown["True revisits closed"].value == "83.4 %"
    assert shown["Trajectory error"].value == "2.50 m"
    assert "0.25 of it left" in shown["Trajectory error"].note
    assert shown["Keyframes"].value == "1,412"
    assert shown["Image to closure"].value == "81 ms"


def test_what_was_not_measured_is_no_number() -> None:
    for summary in ({}, dict.fromkeys(SUMMARY)):
        for figure in key_figures(summary):
            assert figure.value == UNKNOWN


@given(st.floats(0.0, 1.0))
def test_a_hundred_percent_means_every_one(fraction: float) -> None:
    shown = key_figures({"revisit_recall": fraction})[1].value
    assert float(shown.removesuffix(" %")) <= 100 * fraction + 1e-6
    if fraction < 0.9999:
        assert shown != "100 %"


def test_page_holds_tables_and_pictures(tmp_path: Path) -> None:
    png = tmp_path / "trajectory.png"
    png.write_bytes(b"\x89PNG picture")
    page = write_report(
        tmp_path / "report.html",
        SUMMARY,
        [Picture(png, "Trajectory", "From above")],
        [LinkedFile(tmp_path / "tum" / "estimate.tum", "Corrected trajectory", "evo_ape tum")],
        title="Demo",
    ).read_text()
    assert base64.b64encode(png.read_bytes()).decode() in page
    assert page.index("too few inliers") < page.index("pose implausible")
    assert "sequence matching" in page
    assert 'href="tum/estimate.tum"' in page
    assert "http" not in page  # opens without a network


def test_page_of_an_empty_summary(tmp_path: Path) -> None:
    page = write_report(tmp_path / "new" / "report.html", {}).read_text()
    assert "No candidate was refused." in page
    assert "Not measured." in page


def test_words_from_outside_are_escaped(tmp_path: Path) -> None:
    summary = {"rejected_by_reason": {"<script>": 1}}
    page = write_report(tmp_path / "report.html", summary, title="a & b").read_text()
    assert "<script>" not in page
    assert "a &amp; b" in page


def test_missing_picture_leaves_no_page(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "report.html", {}, [Picture(tmp_path / "no.png", "", "")])
    assert not list(tmp_path.iterdir())
