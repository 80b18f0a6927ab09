"""A finished run judged and shown: summary.json, pictures, trajectories and the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.config import SegmentationConfig, SequenceMatchingConfig
from vpr.evaluation.closures import ClosureFigures, closure_figures, searchable_matrix
from vpr.evaluation.pictures import (
    ImagePair,
    draw_attention,
    draw_latency,
    draw_pairs,
    draw_similarity,
    draw_trajectory,
)
from vpr.evaluation.recording import Run, Source, read_images, read_run, read_source
from vpr.evaluation.report import LinkedFile, Picture, write_report
from vpr.evaluation.trajectory import (
    StampedPoses,
    TrajectoryError,
    absolute_trajectory_error,
    alignment,
    sampled,
    write_tum,
)
from vpr.images.attention import make_attention
from vpr.records import ClosureState, Image, LoopClosure

LATENCY_TOPICS = {  # node -> the topic whose first message about an image is its answer
    "segmentation": "attention",
    "embedding": "descriptor",
    "sequence_matching": "matches",
    "loop_closure": "loop_closures",
}
PAIRS_SHOWN = 6  # of each verdict
WARM_UP = 20  # images; first calls of a network and of caches are not the running latency


def evaluate_run(
    bag: Path, recording: Path, out: Path, params_file: Path | None = None
) -> dict[str, Any]:
    """Judge a recorded run against the bag it was made from and write everything to ``out``.

    Figures that need the truth are None for a bag without a ``ground_truth`` topic.

    Raises:
        BagError: a bag is missing or damaged.
    """
    run, source = read_run(recording), read_source(bag)
    summary = summarise(run, source, SequenceMatchingConfig.from_file(params_file))
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    tracks = write_trajectories(run, source, out)
    pictures = _pictures(run, source, tracks, summary, out)
    files = [
        LinkedFile(out / "summary.json", "every figure on this page"),
        LinkedFile(recording, "all outputs as MCAP: open it in Foxglove, or play it into RViz"),
    ]
    for name, file in _tum_files(tracks, out).items():
        command = f"evo_ape tum truth.tum {file.name} -a" if "truth" in tracks else ""
        files.append(LinkedFile(file, f"{name} in TUM format", command if name != "truth" else ""))
    write_report(out / "report.html", summary, pictures, files, subtitle=bag.name)
    return summary


def summarise(run: Run, source: Source, config: SequenceMatchingConfig) -> dict[str, Any]:
    """The content of ``summary.json``."""
    described = run.arrivals.get("descriptor", {})
    without_image = sum(closure.rejected_by == "no_features" for closure in run.closures)
    lost = sum(stamp not in described for stamp in source.image_stamps_ns)
    figures = _closure_figures(run, source, config)
    before, after = _errors(run, source)
    return {
        "verified_precision": figures.verified_precision,
        "revisit_recall": figures.revisit_recall,
        "naive_precision": figures.naive_precision,
        "naive_precision_at_revisits": figures.naive_precision_at_revisits,
        "ate_before_m": before,
        "ate_after_m": after,
        "keyframes": len(run.keyframes),
        "keyframes_lost": lost + without_image,
        "images": len(source.image_stamps_ns),
        "revisits": figures.revisits,
        "closures_verified": figures.verified,
        "closures_rejected": figures.rejected,
        "closures_refused_by_graph": len(run.refused),
        "closure_translation_error_m_p95": figures.translation_error_m,
        "closure_rotation_error_deg_p95": figures.rotation_error_deg,
        "closure_translation_error_m_max": figures.worst_translation_error_m,
        "closure_rotation_error_deg_max": figures.worst_rotation_error_deg,
        "undecodable_messages": dict(run.undecodable),
        "rejected_by_reason": dict(figures.rejected_by_reason),
        "latency_ms": latencies(run),
        "processing_ms": run.processing_ms,
    }


def _closure_figures(run: Run, source: Source, config: SequenceMatchingConfig) -> ClosureFigures:
    if source.truth is not None:
        return closure_figures(
            run.keyframes,
            run.closures,
            source.truth,
            config.exclude_recent_time,
            config.exclude_recent_keyframes,
        )
    verified = sum(c.state == ClosureState.VERIFIED for c in run.closures)
    rejected = [c for c in run.closures if c.state == ClosureState.REJECTED]
    reasons = {c.rejected_by: 0 for c in rejected}
    for closure in rejected:
        reasons[closure.rejected_by] += 1
    unknown = dict.fromkeys(
        (
            "verified_precision", "revisit_recall", "naive_precision",
            "naive_precision_at_revisits", "translation_error_m", "rotation_error_deg",
            "worst_translation_error_m", "worst_rotation_error_deg",
        )
    )  # fmt: skip
    return ClosureFigures(
        verified=verified, rejected=len(rejected), revisits=0, rejected_by_reason=reasons, **unknown
    )


def latencies(run: Run) -> dict[str, dict[str, float]]:
    """Milliseconds from an image's arrival to each node's first message about it, p50 and p95.

    Arrivals are taken by one recorder with one clock; ``end_to_end`` is image to verdict.
    """
    images = run.arrivals.get("camera/image_raw/compressed") or run.arrivals.get("camera/image_raw")
    result: dict[str, dict[str, float]] = {}
    if not images:
        return result
    settled = set(sorted(images)[WARM_UP:])
    for node, topic in LATENCY_TOPICS.items():
        answered = run.arrivals.get(topic, {})
        delays = [(answered[s] - images[s]) / 1e6 for s in answered if s in settled]
        if delays:
            p50, p95 = np.percentile(delays, [50, 95])
            result[node] = {"p50": float(p50), "p95": float(p95)}
    if "loop_closure" in result:
        result["end_to_end"] = result["loop_closure"]
    return result


def _odometry_of(run: Run) -> StampedPoses:
    known = [keyframe for keyframe in run.keyframes if keyframe.odometry is not None]
    return StampedPoses(
        tuple(keyframe.stamp_ns for keyframe in known),
        tuple(keyframe.odometry for keyframe in known if keyframe.odometry is not None),
    )


def _corrected(run: Run) -> StampedPoses:
    known = [keyframe for keyframe in run.keyframes if keyframe.id in run.trajectory]
    return StampedPoses(
        tuple(keyframe.stamp_ns for keyframe in known),
        tuple(run.trajectory[keyframe.id] for keyframe in known),
    )


def _errors(run: Run, source: Source) -> tuple[float | None, float | None]:
    """ATE of the odometry and of the corrected trajectory at the keyframes, metres."""
    if source.truth is None:
        return None, None
    errors: list[float | None] = []
    for estimate in (_odometry_of(run), _corrected(run)):
        truth = sampled(source.truth, estimate.stamps_ns)
        kept = set(truth.stamps_ns)
        rows = [i for i, stamp in enumerate(estimate.stamps_ns) if stamp in kept]
        common = StampedPoses(truth.stamps_ns, tuple(estimate.poses[i] for i in rows))
        try:
            errors.append(absolute_trajectory_error(common, truth))
        except TrajectoryError:
            errors.append(None)
    return errors[0], errors[1]


def write_trajectories(run: Run, source: Source, out: Path) -> dict[str, StampedPoses]:
    """Write ``odometry.tum``, ``corrected.tum`` and, where known, ``truth.tum``."""
    tracks = {"odometry": _odometry_of(run), "corrected": _corrected(run)}
    if source.truth is not None:
        stamps = [keyframe.stamp_ns for keyframe in run.keyframes]
        tracks["truth"] = sampled(source.truth, stamps)
    for name, file in _tum_files(tracks, out).items():
        write_tum(file, tracks[name])
    return tracks


def _tum_files(tracks: dict[str, StampedPoses], out: Path) -> dict[str, Path]:
    return {name: out / f"{name}.tum" for name in tracks}


def _pictures(
    run: Run,
    source: Source,
    tracks: dict[str, StampedPoses],
    summary: dict[str, Any],
    out: Path,
) -> list[Picture]:
    pictures: list[Picture] = []
    if file := _draw_trajectories(run, tracks, out / "trajectory.png"):
        caption = "Top view, metres: odometry alone, corrected by the closures (linked), and truth."
        pictures.append(Picture(file, "Trajectory before and after", caption))
    if run.keyframes:
        file = _draw_similarity(run, out / "similarity.png")
        caption = "How alike every two keyframes look, and the verdicts on the candidates."
        pictures.append(Picture(file, "Similarity and closures", caption))
    if pairs := _pairs(run, source):
        file = draw_pairs(out / "pairs.png", pairs)
        caption = "Remembered view left, live view right, and why."
        pictures.append(Picture(file, "Verified and rejected pairs", caption, photo=True))
    if views := _attention_views(source):
        file = draw_attention(out / "attention.png", views)
        caption = "Where the attention map looks (Laplacian-of-Gaussian boundaries, diffused)."
        pictures.append(Picture(file, "Attention", caption, photo=True))
    if summary["latency_ms"]:
        file = draw_latency(out / "latency.png", summary["latency_ms"])
        caption = "Milliseconds from the image's arrival to each node's answer."
        pictures.append(Picture(file, "Latency", caption))
    return pictures


def _draw_trajectories(run: Run, tracks: dict[str, StampedPoses], file: Path) -> Path | None:
    """Odometry and correction laid over the truth, each by its own rigid alignment."""
    odometry, corrected = tracks["odometry"], tracks["corrected"]
    if len(corrected.stamps_ns) < 3 or len(odometry.stamps_ns) < 3:
        return None
    truth = tracks.get("truth")
    if truth is not None and len(truth.stamps_ns) == len(corrected.stamps_ns):
        try:
            corrected = corrected.transformed(alignment(corrected, truth))
            odometry = odometry.transformed(alignment(odometry, truth))
        except TrajectoryError:
            truth = None
    row_of = {stamp: row for row, stamp in enumerate(corrected.stamps_ns)}
    links = [
        (row_of[c.query_stamp_ns], row_of[c.reference_stamp_ns])
        for c in run.closures
        if c.state == ClosureState.VERIFIED
        and c.query_stamp_ns in row_of
        and c.reference_stamp_ns in row_of
    ]
    truth_positions = None if truth is None else truth.positions
    return draw_trajectory(file, odometry.positions, corrected.positions, truth_positions, links)


def _draw_similarity(run: Run, file: Path) -> Path:
    descriptors = np.stack([keyframe.descriptor for keyframe in run.keyframes])
    similarity: NDArray[np.float64] = (descriptors @ descriptors.T).astype(np.float64)
    similarity[~searchable_matrix(run.keyframes, 0.0, 0)] = np.nan
    row_of = {keyframe.id: row for row, keyframe in enumerate(run.keyframes)}

    def rows(state: ClosureState) -> list[tuple[int, int]]:
        return [
            (row_of[c.query_id], row_of[c.reference_id])
            for c in run.closures
            if c.state == state and c.query_id in row_of and c.reference_id in row_of
        ]

    return draw_similarity(
        file, similarity, rows(ClosureState.VERIFIED), rows(ClosureState.REJECTED)
    )


def _spread(closures: Sequence[LoopClosure], count: int) -> list[LoopClosure]:
    """Evenly chosen over the drive, so that a sheet does not show one corner only."""
    if len(closures) <= count:
        return list(closures)
    rows = np.linspace(0, len(closures) - 1, count).round().astype(int)
    return [closures[row] for row in rows.tolist()]


def _pairs(run: Run, source: Source) -> list[ImagePair]:
    verified = [c for c in run.closures if c.state == ClosureState.VERIFIED]
    rejected = [
        c
        for c in run.closures
        if c.state == ClosureState.REJECTED and c.rejected_by != "better_candidate"
    ]
    chosen = _spread(verified, PAIRS_SHOWN) + _spread(rejected, PAIRS_SHOWN)
    stamps = {c.query_stamp_ns for c in chosen} | {c.reference_stamp_ns for c in chosen}
    images = read_images(source.path, stamps)
    return [
        ImagePair(
            images[c.query_stamp_ns],
            images[c.reference_stamp_ns],
            c.state == ClosureState.VERIFIED,
            c.reason,
        )
        for c in chosen
        if c.query_stamp_ns in images and c.reference_stamp_ns in images
    ]


def _attention_views(source: Source) -> list[tuple[Image, NDArray[np.uint8]]]:
    attention = make_attention(SegmentationConfig.from_file())
    count = len(source.image_stamps_ns)
    stamps = {source.image_stamps_ns[count * i // 4] for i in range(4)} if count else set()
    images = read_images(source.path, stamps)
    return [(images[stamp], attention(images[stamp])) for stamp in sorted(images)]
