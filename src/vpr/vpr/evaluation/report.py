"""A run on one page: key figures, pictures, why candidates were refused, where the files are.

The page is one self-contained HTML file: the pictures are inside it.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

UNKNOWN = "\u2013"  # an en dash: not measured, as without ground truth


@dataclass(frozen=True)
class Picture:
    """A PNG to show. A plot is inverted on a dark screen; a ``photo`` is not, and is shown wide."""

    file: Path
    title: str
    caption: str
    photo: bool = False


@dataclass(frozen=True)
class LinkedFile:
    """A file beside the report and how to open it."""

    file: Path
    purpose: str
    command: str = ""


@dataclass(frozen=True)
class Figure:
    """One key figure as it is shown."""

    name: str
    value: str
    note: str


def write_report(
    file: Path,
    summary: Mapping[str, Any],
    pictures: Sequence[Picture] = (),
    files: Sequence[LinkedFile] = (),
    title: str = "Visual place recognition",
    subtitle: str = "",
) -> Path:
    """Write the page and return its path.

    Args:
        summary: the content of ``summary.json``: ``verified_precision``, ``revisit_recall``,
            ``naive_precision``, ``ate_before_m``, ``ate_after_m``, ``keyframes``,
            ``keyframes_lost``, ``rejected_by_reason`` (reason -> count) and ``latency_ms``
            (node -> p50, p95). What is absent or None is shown as not measured.
        files: linked relative to the page.

    Raises:
        FileNotFoundError: a picture is missing.
    """
    environment = Environment(
        loader=PackageLoader("vpr", "evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rejected = dict(summary.get("rejected_by_reason") or {})
    page = environment.get_template("report.html").render(
        title=title,
        subtitle=subtitle,
        figures=key_figures(summary),
        pictures=[(picture, _data_url(picture.file)) for picture in pictures],
        rejected=sorted(rejected.items(), key=lambda item: -item[1]),
        latency=_latency_rows(summary),
        files=[(linked, os.path.relpath(linked.file, file.parent)) for linked in files],
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(file)
    return file


def key_figures(summary: Mapping[str, Any]) -> list[Figure]:
    """The figures at the top of the page, most important first."""
    before, after = summary.get("ate_before_m"), summary.get("ate_after_m")
    end_to_end = (summary.get("latency_ms") or {}).get("end_to_end") or {}
    return [
        Figure(
            "Precision of verified closures",
            _percent(summary.get("verified_precision")),
            f"single-image nearest neighbour: {_percent(summary.get('naive_precision'))}",
        ),
        Figure(
            "True revisits closed",
            _percent(summary.get("revisit_recall")),
            "within 2 s of driving by",
        ),
        Figure(
            "Trajectory error",
            _number(after, 2, " m"),
            f"{_number(before, 2, ' m')} before the closures"
            + (f", {after / before:.2f} of it left" if before and after is not None else ""),
        ),
        Figure(
            "Keyframes",
            _number(summary.get("keyframes"), 0),
            f"{_number(summary.get('keyframes_lost'), 0)} lost",
        ),
        Figure(
            "Image to closure",
            _number(end_to_end.get("p95"), 0, " ms"),
            f"p95; median {_number(end_to_end.get('p50'), 0, ' ms')}",
        ),
    ]


def _latency_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    latency = summary.get("latency_ms") or {}
    return [
        (node.replace("_", " "), _number(values.get("p50"), 1), _number(values.get("p95"), 1))
        for node, values in latency.items()
    ]


def _percent(fraction: float | None) -> str:
    """Rounded down, so that 100 % means every single one."""
    return UNKNOWN if fraction is None else f"{math.floor(round(fraction * 1e3, 6)) / 10:g} %"


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return UNKNOWN if value is None else f"{value:,.{digits}f}{unit}"


def _data_url(png: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode("ascii")
