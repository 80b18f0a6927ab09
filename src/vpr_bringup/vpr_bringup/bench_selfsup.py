"""Self-supervised learning, measured: simulated towns, real images, training speed, search.

``python -m vpr_bringup.bench_selfsup [OUT] [--full] [--readme FILE]`` makes the towns, trains,
calibrates and judges. Towns used to learn, to choose the epoch, to calibrate and to judge are
different ones; each is driven twice, in the morning and in an overcast evening. Towns, features,
the model and every row (``rows.json``) stay in OUT: a run that was cut short goes on there.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from vpr.bags.reader import BagReader
from vpr.config import (
    EmbeddingConfig,
    FineTuningConfig,
    GpsImageSyncConfig,
    SequenceMatchingConfig,
)
from vpr.evaluation.kept_rows import KeptRows, Row
from vpr.evaluation.leave_one_out import REAL_SETS, leave_one_out_rows
from vpr.evaluation.search_time import search_rows
from vpr.evaluation.selfsup import evaluate_selfsup
from vpr.evaluation.training_speed import training_speed
from vpr.learning.descriptor import TrainingData, train_descriptor
from vpr.learning.drives import read_drives
from vpr.learning.features import read_features
from vpr.learning.networks import make_learner
from vpr.learning.trainer import Trainer
from vpr.models.embedder import Embedder
from vpr.simulation.config import SimulationConfig
from vpr.simulation.recording import own_spot, record_drive
from vpr.supervision.map_picture import MAP_PICTURE
from vpr.supervision.recordings import bag_events, label_recording
from vpr_bringup.bench import data_folder
from vpr_bringup.bench_lines import Line, print_lines, write_readme

FIRST_EXACT = 3100  # from this seed on GPS is exact and plays the truth; before, noise and gaps
KEYFRAME_TRANSLATION = 2.0  # m; less than lies between two images
CAMERA = {"image_width": 320, "image_height": 240, "image_rate": 1.0}  # 5 m between images
EXACT = {"gps_noise": 0.05, "gps_gap_share": 0.0}
MARKERS = ("<!-- selfsup: begin (bench_selfsup) -->", "<!-- selfsup: end -->")
console = Console()


@dataclass(frozen=True)
class Sizes:
    """How much is measured; the towns are seeds."""

    learnt: range
    choosing: range  # the epoch
    calibrated: range
    judged: range
    real_sets: int  # the first so many
    places: tuple[int, ...]  # remembered, in the search

    def towns(self) -> list[int]:
        """All seeds."""
        return [*self.learnt, *self.choosing, *self.calibrated, *self.judged]


REDUCED = Sizes(
    range(3000, 3008), range(3100, 3101), range(3200, 3219), range(3300, 3308), 3, (1_000, 10_000)
)
FULL = Sizes(
    range(3000, 3040), range(3100, 3103), range(3200, 3259), range(3300, 3322), 4,
    (1_000, 10_000, 50_000),
)  # fmt: skip


def run_bench(out: Path, sizes: Sizes, readme: Path | None) -> None:
    """Measure everything, print it and, if asked, write the README's table."""
    out.mkdir(parents=True, exist_ok=True)
    folders = make_towns(out, sizes.towns())
    kept = KeptRows(out / "rows.json", _settings(sizes))
    lines = [
        *towns(out, folders, sizes, kept),
        *real_images(out, sizes, kept),
        *speed(out, folders, sizes, kept),
        *search(sizes, kept),
    ]
    print_lines(lines)
    if readme is not None:
        write_readme(readme, lines, MARKERS)


def _settings(sizes: Sizes) -> Row:
    """All that the rows depend on."""
    configs = {
        "embedding": EmbeddingConfig.from_file(),
        "fine_tuning": FineTuningConfig.from_file(),
        "sequence_matching": SequenceMatchingConfig.from_file(),
    }
    return {"sizes": str(sizes)} | {name: part.model_dump() for name, part in configs.items()}


def make_towns(out: Path, seeds: Iterable[int]) -> dict[int, Path]:
    """The labelled drives through each town; those already made are kept."""
    folders = {seed: out / f"town_{seed}" for seed in seeds}
    missing = [seed for seed, folder in folders.items() if not (folder / MAP_PICTURE).exists()]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        made = pool.map(make_town, (folders[seed] for seed in missing), missing)
        for _ in track(made, "driving through the towns", len(missing), console=console):
            pass
    return folders


def make_town(folder: Path, seed: int) -> None:
    """Drive through a town and label what was recorded."""
    bag = folder.with_name(f"bag_{seed}")
    truth: dict[str, Any] = EXACT if seed >= FIRST_EXACT else {}
    config = SimulationConfig(gps_longitude=own_spot(seed), **CAMERA, **truth)
    record_drive(bag, seed, config, overwrite=True, progress=False)
    shutil.rmtree(folder, ignore_errors=True)
    label = GpsImageSyncConfig.from_file(
        dataset=str(folder), keyframe_translation=KEYFRAME_TRANSLATION
    )
    with BagReader(bag) as reader:
        label_recording(folder.name, bag_events(reader), label, progress=False)
    shutil.rmtree(bag)


def towns(out: Path, folders: dict[int, Path], sizes: Sizes, kept: KeptRows) -> list[Line]:
    """Learn in some towns, judge in others: what ``vpr eval selfsup`` says."""
    learnt, choosing, calibrated, judged = (
        [folders[seed] for seed in seeds]
        for seeds in (sizes.learnt, sizes.choosing, sizes.calibrated, sizes.judged)
    )
    embedding, config = EmbeddingConfig.from_file(), FineTuningConfig.from_file()
    model = out / "towns.safetensors"
    sequences = SequenceMatchingConfig.from_file()

    def train() -> Row:
        data = TrainingData(learnt, choosing, calibrated)
        trained = train_descriptor(data, model, embedding, config, sequences)
        return {
            "epochs": trained.outcome.epochs,
            "best_epoch": trained.outcome.best_epoch,
            "notes": list(trained.notes),
        }

    kept.row("training", train)
    figures = evaluate_selfsup(judged, model, out / "figures", embedding, config, sequences, kept)
    counts = " / ".join(str(len(part)) for part in (learnt, choosing, calibrated, judged))
    return [
        Line("towns learnt from / epoch chosen on / calibrated on / judged on", counts, "-", "-"),
        *_recognition(figures),
        *_calibration(figures.get("calibration", {})),
        *_pose_graph(figures),
    ]


def _recognition(figures: dict[str, Any]) -> list[Line]:
    """The learned descriptor beside the untouched backbone."""
    lines = []
    mean = figures["mean_of_drives"]
    within = {f"one memory of all towns, right within {r}": f for r, f in figures["within"].items()}
    frames = figures["sequences"]["frames"]
    for where, found in {
        "each town by itself": mean,
        "one memory of all towns": figures["together"],
        f"the same, sequences of {frames} keyframes": figures["sequences"],
        **within,
    }.items():
        ours, peer = found["learned"], found["backbone"]
        full = "recall_at_100_precision"
        gone = (ours[full] - peer[full]) / max(1.0 - peer[full], 1e-9)
        lines += [
            Line(
                f"{where}: recall@1, average precision",
                f"{ours['recall@1']:.3f}, {ours['average_precision']:.3f}",
                f"{peer['recall@1']:.3f}, {peer['average_precision']:.3f} plain backbone",
                "more",
            ),
            Line(
                f"{where}: recall at 100 % precision",
                f"{ours[full]:.3f}, {gone:.0%} of the misses gone",
                f"{peer[full]:.3f} plain backbone",
                "≥ 50 % gone",
            ),
        ]
    return lines


def _calibration(found: dict[str, Any]) -> list[Line]:
    """Calibration errors and thresholds, of single images and of sequences."""
    lines = []
    for kind, part in found.items():
        ranked = part["ranked_by_probability"]
        what = f"one memory of all towns, {kind} accepted by probability: at 100 % precision, AP"
        values = f"{ranked['recall_at_100_precision']:.3f}, {ranked['average_precision']:.3f}"
        lines.append(Line(what, values, "-", "more"))
        for name, error in part["expected_calibration_error"].items():
            what = f"expected calibration error, {kind}: {name}"
            lines.append(Line(what, f"{error:.3f}", "-", "≤ 0.030"))
        for threshold in part["thresholds"]:
            held, judged = threshold["drives_held"], threshold["drives_judged"]
            precision = threshold["precision_here"]
            lines.append(
                Line(
                    f"{kind}, threshold for precision {threshold['wanted_precision']:g}: held on, "
                    "precision and recall of all",
                    f"{held} of {judged} drives (promised on {threshold['assured_drives']:.0%}), "
                    f"{precision or 0.0:.3f}, {threshold['recall_here']:.2f}",
                    "-",
                    "19 of 20",
                )
            )
    return lines


def _pose_graph(figures: dict[str, Any]) -> list[Line]:
    found = figures.get("pose_graph")
    if found is None:
        return []
    after, before = found["rmse_optimised_m"], found["rmse_measured_m"]
    what = "pose graph of one drive, RMSE"
    return [Line(what, f"{after:.1f} m closed", f"{before:.1f} m drifting odometry", "less")]


def speed(out: Path, folders: dict[int, Path], sizes: Sizes, kept: KeptRows) -> list[Line]:
    """Pairs a second in training, and when data cost nothing."""
    drives = [folders[seed] for seed in (*sizes.learnt[:5], sizes.choosing[0])]
    lines = []
    for name, changes, steps in (
        ("head on cached features", {}, 60),
        ("last block of the backbone too, from image files", _UNFROZEN, 8),
    ):
        config = FineTuningConfig.from_file(**changes)
        found = kept.row(f"speed, {name}", partial(_speed, drives, config, steps, out))
        lines.append(
            Line(
                f"training, {name}",
                f"{found['training']:,.0f} pairs/s ({found['training'] / found['limit']:.0%})",
                f"{found['limit']:,.0f} pairs/s forward and backward alone",
                "near 100 %",
            )
        )
    return lines


def _speed(folders: list[Path], config: FineTuningConfig, steps: int, out: Path) -> Row:
    """The last folder chooses the epoch, the others are learnt from."""
    embedder = Embedder(EmbeddingConfig.from_file(runtime="pytorch"))
    features = read_features(read_drives(folders), embedder)
    last = len(features.drives.names) - 1
    training, validation = (features.drives.rows_of(part) for part in (range(last), [last]))
    learner = make_learner(features, embedder, config, training)
    model = out / "speed.safetensors"
    trainer = Trainer(learner, features, training, validation, config, model)
    return asdict(training_speed(trainer, steps))


_UNFROZEN: dict[str, Any] = {"unfreeze": 1, "batch_positives": 2}


def real_images(out: Path, sizes: Sizes, kept: KeptRows) -> list[Line]:
    """Learn from all real data sets but one, judge on that one."""
    data = data_folder()
    if data is None:
        return []
    config = FineTuningConfig.from_file()
    rows = leave_one_out_rows(data, out, config, REAL_SETS[: sizes.real_sets], kept=kept)
    return [
        Line(
            f"{row['data set']}, learnt on the {sizes.real_sets - 1} other real sets: "
            "recall@1, at 100 % precision, average precision",
            f"{row['recall@1 after']:.3f}, {row['recall at 100 % after']:.3f}, "
            f"{row['average precision after']:.3f}",
            f"{row['recall@1 before']:.3f}, {row['recall at 100 % before']:.3f}, "
            f"{row['average precision before']:.3f} plain backbone",
            "more",
        )
        for row in rows
    ]


def search(sizes: Sizes, kept: KeptRows) -> list[Line]:
    """What each index costs and finds."""
    rows = kept.row("search", lambda: {"indices": search_rows(sizes.places)})["indices"]
    exact = {row["places"]: row for row in rows if row["index"] == "exact"}
    return [
        Line(
            f"{row['index']} index of {row['places']:,} places: add, 10-NN, epsilon-NN; found",
            f"{row['add_ms']:.3f}, {row['p50_ms']:.2f}, {row['within_p50_ms']:.2f} ms; "
            f"{row['found']:.0%}",
            f"{exact[row['places']]['p50_ms']:.2f} ms 10-NN exact",
            "chosen by this",
        )
        for row in rows
    ]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path("out/bench_selfsup"))
    parser.add_argument("--full", action="store_true", help="all sizes; half an hour")
    parser.add_argument("--readme", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    sizes = FULL if arguments.full else REDUCED
    run_bench(arguments.out, sizes, arguments.readme)


if __name__ == "__main__":
    main()
