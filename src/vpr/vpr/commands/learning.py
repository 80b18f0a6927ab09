"""``vpr dataset``, ``vpr train`` and ``vpr eval selfsup``: labelled drives to a descriptor."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vpr.commands.outcome import explained, write_json
from vpr.config import (
    EmbeddingConfig,
    FineTuningConfig,
    GpsImageSyncConfig,
    SequenceMatchingConfig,
)

dataset_app = typer.Typer(no_args_is_help=True, help="Recordings to folders of labelled images.")
train_app = typer.Typer(no_args_is_help=True, help="Train networks.")
console = Console()

ParamsFile = Annotated[
    Path | None, typer.Option("--params-file", help="Parameters laid over the shipped ones.")
]
Out = Annotated[Path, typer.Option("--out", help="Dataset folder; a further recording is added.")]


@dataset_app.command("from-bag")
def dataset_from_bag(
    bag: Path,
    out: Out,
    image: Annotated[str | None, typer.Option(help="Camera topic.")] = None,
    fix: Annotated[str | None, typer.Option(help="NavSatFix topic.")] = None,
    odometry: Annotated[str | None, typer.Option(help="Odometry topic.")] = None,
    imu: Annotated[str | None, typer.Option(help="Imu topic, for the heading.")] = None,
    params_file: ParamsFile = None,
) -> None:
    """Label a bag's images by its GPS, as the gps_image_sync node does live."""
    from vpr.bags.reader import BagReader
    from vpr.supervision.recordings import bag_events

    named = {"image": image, "fix": fix, "odometry": odometry, "imu": imu}
    topics = {kind: topic for kind, topic in named.items() if topic is not None}
    with explained(), BagReader(bag) as reader:
        _label(bag.resolve().name, bag_events(reader, topics), out, params_file)


@dataset_app.command("from-kitti-raw")
def dataset_from_kitti_raw(
    drive: Path,
    out: Out,
    camera: Annotated[str, typer.Option(help="image_00 to image_03.")] = "image_02",
    params_file: ParamsFile = None,
) -> None:
    """A synchronised KITTI raw drive: its images, fixes and INS heading."""
    from vpr.supervision.kitti import kitti_raw_events

    with explained():
        _label(drive.resolve().name, kitti_raw_events(drive, camera), out, params_file)


@dataset_app.command("from-kitti-odometry")
def dataset_from_kitti_odometry(
    dataset: Path,
    sequence: Annotated[str, typer.Argument(help="As 00.")],
    out: Out,
    camera: Annotated[str, typer.Option(help="image_0 to image_3.")] = "image_0",
    params_file: ParamsFile = None,
) -> None:
    """A KITTI odometry sequence with its true poses."""
    from vpr.supervision.kitti import kitti_odometry_events

    with explained():
        events = kitti_odometry_events(dataset, sequence, camera)
        _label(f"kitti_odometry_{sequence}", events, out, params_file)


@dataset_app.command("from-st-lucia")
def dataset_from_st_lucia(traverse: Path, out: Out, params_file: ParamsFile = None) -> None:
    """A traverse of St Lucia Multiple Times of Day."""
    from vpr.supervision.st_lucia import st_lucia_events

    with explained():
        _label(traverse.resolve().name, st_lucia_events(traverse), out, params_file)


@dataset_app.command("info")
def dataset_info(folder: Path) -> None:
    """What a dataset folder holds and what was left out, and why."""
    from vpr.supervision.dataset import read_dataset, read_manifest

    with explained():
        manifest, dataset = read_manifest(folder), read_dataset(folder)
    table = Table("", "", title=str(folder), show_header=False)
    table.add_row("keyframes", str(len(dataset)))
    table.add_row("sessions", str(manifest.sessions))
    for title, counts in (
        ("fixes left out", manifest.rejected_fixes),
        ("images left out", manifest.rejected_images),
    ):
        table.add_row(title, ", ".join(f"{key} {n}" for key, n in counts.items()) or "none")
    table.add_row("recordings", ", ".join(s.name for s in manifest.sources) or "live")
    console.print(table)


def _label(name: str, events: Any, out: Path, params_file: Path | None) -> None:
    from vpr.supervision.recordings import label_recording

    config = GpsImageSyncConfig.from_file(params_file, dataset=str(out))
    labelled = label_recording(name, events, config)
    left_out = labelled.rejected_fixes + labelled.rejected_images
    reasons = ", ".join(f"{key} {n}" for key, n in left_out.items()) or "nothing"
    console.print(f"{out}: {labelled.keyframes} keyframes; left out: {reasons}")


@train_app.command("descriptor")
def train_descriptor_command(
    data: Annotated[list[Path], typer.Option("--data", help="Dataset folder; repeat for several.")],
    out: Annotated[Path, typer.Option(help="The model, a .safetensors file.")],
    validation: Annotated[
        list[Path] | None,
        typer.Option(help="Dataset folder held out to choose the best epoch; default: the last "
                     "drives of --data."),
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="Dataset folder held out to calibrate; default: the validation drives. "
                     "59 drives or more assure thresholds on 19 of 20 new ones."),
    ] = None,
    onto: Annotated[
        Path | None, typer.Option("--from", help="Go on from this trained model.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="At most.", min=1)] = None,
    fresh: Annotated[bool, typer.Option(help="Begin anew where a run was interrupted.")] = False,
    params_file: ParamsFile = None,
) -> None:  # fmt: skip
    """Learn a descriptor from GPS-labelled drives; an interrupted run goes on where it was.

    Several GPUs or processes: torchrun --nproc-per-node N -m vpr.cli train descriptor ...
    """
    from vpr.learning.descriptor import TrainingData, train_descriptor

    with explained():
        changes: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
        config = FineTuningConfig.from_file(params_file, **changes)
        model = {} if onto is None else {"model": str(onto)}
        embedding = EmbeddingConfig.from_file(params_file, **model)
        parts = TrainingData(data, validation or (), calibration or ())
        sequences = SequenceMatchingConfig.from_file(params_file)
        trained = train_descriptor(parts, out, embedding, config, sequences, fresh)
    _print_training(trained)


def eval_selfsup(
    data: Annotated[
        list[Path], typer.Option("--data", help="Held-out dataset folder; repeat for several.")
    ],
    model: Annotated[Path, typer.Option(help="What vpr train descriptor made.")],
    out: Annotated[Path, typer.Option(help="Where pictures and figures.json go.")],
    rows_file: Annotated[
        Path | None,
        typer.Option("--rows", help="JSON file; what a run has made is kept there and not made "
                     "again."),
    ] = None,
    params_file: ParamsFile = None,
) -> None:  # fmt: skip
    """The learned descriptor against the untouched backbone: the paper's figures 2 to 9."""
    from vpr.evaluation.kept_rows import KeptRows
    from vpr.evaluation.selfsup import evaluate_selfsup

    with explained():
        config = FineTuningConfig.from_file(params_file)
        embedding = EmbeddingConfig.from_file(params_file)
        sequences = SequenceMatchingConfig.from_file(params_file)
        parts = {"fine_tuning": config, "embedding": embedding, "sequence_matching": sequences}
        settings: dict[str, Any] = {name: part.model_dump() for name, part in parts.items()}
        settings |= {"drives": [str(folder) for folder in data], "model": _digest(model)}
        kept = KeptRows(rows_file, settings)
        figures = evaluate_selfsup(data, model, out, embedding, config, sequences, kept)
    write_json(figures, out / "figures.json")
    table = Table("all drives together", "backbone", "learned", title=str(out))
    together = figures["together"]
    for name, value in together["backbone"].items():
        table.add_row(name, f"{value:.4g}", f"{together['learned'][name]:.4g}")
    console.print(table)
    console.print(f"misses at 100 % precision gone: {figures['misses_gone']:.0%}")
    console.print_json(data=figures.get("calibration", {}))


def _print_training(trained: Any) -> None:
    outcome = trained.outcome
    table = Table(
        "held-out drive", "before", "after", title=f"{trained.file}: {trained.model.name}"
    )
    before, after = outcome.before.to_json(), outcome.after.to_json()
    for name, value in before.items():
        shown = (f"{v:.3f}" if isinstance(v, float) else str(v) for v in (value, after[name]))
        table.add_row(name, *shown)
    console.print(table)
    console.print(
        f"best of {outcome.epochs} epochs: {outcome.best_epoch}; "
        f"{outcome.pairs_per_second:.0f} pairs/s"
    )
    if trained.unreadable:
        console.print(f"{len(trained.unreadable)} images could not be read")
    for note in trained.notes:
        console.print(note)


def _digest(path: Path) -> str:
    """Tells a file's content apart from another's; empty where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""
