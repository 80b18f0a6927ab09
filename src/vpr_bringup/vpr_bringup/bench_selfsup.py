"""Self-supervised learning, measured: simulated towns, real data sets, search and training speed.

``python -m vpr_bringup.bench_selfsup OUT`` makes the towns, trains, calibrates and judges; it takes
about an hour on two cores. Towns used to learn, to choose the epoch, to calibrate and to judge are
different ones; each is driven twice, in the morning and in an overcast evening.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from vpr.bags.reader import BagReader
from vpr.config import EmbeddingConfig, FineTuningConfig, GpsImageSyncConfig
from vpr.evaluation.leave_one_out import leave_one_out_rows
from vpr.evaluation.search_time import search_rows
from vpr.evaluation.selfsup import evaluate_selfsup
from vpr.learning.descriptor import TrainingData, train_descriptor
from vpr.simulation.config import SimulationConfig
from vpr.simulation.recording import own_spot, record_drive
from vpr.supervision.dataset import MANIFEST
from vpr.supervision.map_picture import MAP_PICTURE
from vpr.supervision.recordings import bag_events, label_recording

LEARNT = range(2000, 2014)  # seeds of towns; their GPS has noise and gaps
CHOOSING = range(2100, 2103)  # the epoch; exact GPS from here on, which plays the truth
CALIBRATED = range(2103, 2122)
JUDGED = range(2200, 2222)
KEYFRAME_TRANSLATION = 2.0  # m; towns are small
IMAGE_RATE = 2.0  # Hz
EXACT = {"gps_noise": 0.05, "gps_gap_share": 0.0}
console = Console()


def town(seed: int, folder: Path, exact: bool) -> Path:
    """The labelled drives through one town; made once."""
    out = folder / f"town_{seed}"
    if (out / MANIFEST).exists() and (out / MAP_PICTURE).exists():
        return out
    bag = folder / f"bag_{seed}"
    truth: dict[str, Any] = EXACT if exact else {}
    config = SimulationConfig(image_rate=IMAGE_RATE, gps_longitude=own_spot(seed), **truth)
    record_drive(bag, seed, config, overwrite=True)
    label = GpsImageSyncConfig.from_file(
        dataset=str(out), keyframe_translation=KEYFRAME_TRANSLATION
    )
    with BagReader(bag) as reader:
        label_recording(f"town_{seed}", bag_events(reader), label)
    return out


def towns_figures(out: Path) -> dict[str, Any]:
    """Learn in some towns, judge in others: what ``vpr eval selfsup`` says, and the training."""
    learnt = [town(seed, out, exact=False) for seed in LEARNT]
    choosing, calibrated, judged = (
        [town(seed, out, exact=True) for seed in seeds] for seeds in (CHOOSING, CALIBRATED, JUDGED)
    )
    embedding, config = EmbeddingConfig.from_file(), FineTuningConfig.from_file()
    model = out / "towns.safetensors"
    trained = train_descriptor(TrainingData(learnt, choosing, calibrated), model, embedding, config)
    figures = evaluate_selfsup(judged, model, out / "figures", embedding, config)
    figures["training"] = {
        "epochs": trained.outcome.epochs,
        "best_epoch": trained.outcome.best_epoch,
        "pairs_per_second": trained.outcome.pairs_per_second,
        "notes": list(trained.notes),
    }
    return figures


def real_rows(data: Path, out: Path) -> list[dict[str, float | str]]:
    """Learn from three real data sets, judge on the fourth."""
    return leave_one_out_rows(data, out, FineTuningConfig.from_file())


def main() -> None:
    """Measure everything and write ``selfsup.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the real data sets")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"search": search_rows(), "towns": towns_figures(out)}
    if arguments.data is not None:
        figures["real"] = real_rows(arguments.data, out)
    (out / "selfsup.json").write_text(json.dumps(figures, indent=2) + "\n")
    console.print_json(data=figures)


if __name__ == "__main__":
    main()
