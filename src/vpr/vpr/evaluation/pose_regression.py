"""VLocNet++ beside the nearest keyframe, and what each of its ideas brings."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpr.config import EmbeddingConfig
from vpr.evaluation.kept_rows import KeptRows, Row
from vpr.models.embedder import Embedder
from vpr.models.vlocnet import VLocNetConfig
from vpr.pose_regression.calibration import Distances
from vpr.pose_regression.frames import FramesError, PosedFrames
from vpr.pose_regression.model import PoseModel
from vpr.pose_regression.prediction import Answers, figures, pose_errors, pose_figures, predict
from vpr.pose_regression.sources import frames_of
from vpr.pose_regression.training import VLocNetTrainingConfig, train

REVISIT = (0.5, 30.0)  # m and degrees within which a learnt frame makes a frame a revisit
# what an ablation on a CPU can afford
REDUCED = VLocNetConfig(image_width=96, image_height=64, width=8, units=(1, 1, 3, 1))
REDUCED_TRAINING = VLocNetTrainingConfig(single_steps=0, steps=600, schedule="joint", batch=8)
BATCH = 16  # images described together
ROWS = "rows.json"


def revisits(frames: PosedFrames, learnt: PosedFrames) -> NDArray[np.bool_]:
    """Mask (N,) of the frames that were taken near a learnt one, looking the same way."""
    near = np.zeros(len(frames), np.bool_)
    for index, pose in enumerate(frames.poses):
        metres, degrees = pose_errors(learnt.poses, np.broadcast_to(pose, learnt.poses.shape))
        near[index] = bool(((metres <= REVISIT[0]) & (degrees <= REVISIT[1])).any())
    return near


def nearest_keyframes(
    references: PosedFrames, queries: PosedFrames, params_file: Path | None = None
) -> NDArray[np.float64]:
    """Poses (N, 4, 4) of the reference whose descriptor is nearest to each query's.

    The configured descriptor sees the same pixels as the network does.
    """
    embedder = Embedder(EmbeddingConfig.from_file(params_file))

    def described(frames: PosedFrames) -> NDArray[np.float32]:
        batches = range(0, len(frames), BATCH)
        bgr = frames.images[..., ::-1]
        return np.concatenate([embedder.embed(list(bgr[i : i + BATCH])) for i in batches])

    nearest = (described(queries) @ described(references).T).argmax(axis=1)
    poses: NDArray[np.float64] = references.poses[nearest]
    return poses


def comparison_rows(
    answers: Answers, frames: PosedFrames, learnt: PosedFrames, params_file: Path | None = None
) -> list[Row]:
    """The network and the nearest keyframe, on revisits of what was learnt and on all frames.

    Raises:
        FramesError: the network regresses no pose.
    """
    if not np.isfinite(answers.poses).all():
        raise FramesError("the network regresses no pose: nothing to compare with keyframes")
    nearest = nearest_keyframes(learnt, frames, params_file)
    chosen = {"revisits": revisits(frames, learnt), "all": np.ones(len(frames), np.bool_)}
    return [
        {"method": method, "on": where, "frames": int(mask.sum())}
        | pose_figures(poses[mask], frames.poses[mask])
        for where, mask in chosen.items()
        if mask.any()
        for method, poses in (("VLocNet++", answers.poses), ("nearest keyframe", nearest))
    ]


def trust_figures(model: PoseModel, answers: Answers, frames: PosedFrames) -> dict[str, float]:
    """How far what the model says of its own certainty holds on frames it never saw.

    ``familiar`` is the share of the frames taken for its own world; ``within_95_*`` are the shares
    of those whose error lies within the ellipsoid of 95 % probability, the figure that is to be
    0.95; ``sigma_translation_m`` is the median deviation of an axis that was claimed for them.
    """
    certainty, found = model.certainty, model.certainty.deviations
    strangeness = model.strangeness(answers.embeddings)
    familiar = strangeness <= certainty.familiar
    wider = certainty.inflation(strangeness)
    errors = pose_errors(answers.poses, frames.poses)
    distances = Distances.of(*errors, wider * found.translation, wider * found.rotation)
    result = {"familiar": float(familiar.mean())}
    for name, covered in distances.covered().items():
        result[f"within_95_{name}"] = float(covered[familiar].mean())
    result["sigma_translation_m"] = float(np.median(wider[familiar])) * found.translation
    result["sigma_rotation_deg"] = float(np.degrees(np.median(wider[familiar]) * found.rotation))
    return result


ABLATIONS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "single task": ({"tasks": ("pose",)}, {}),
    "single task, Euclidean loss": ({"tasks": ("pose",)}, {"geometric_consistency": False}),
    "single task, concatenation": ({"tasks": ("pose",), "fusion": "concatenation"}, {}),
    "multitask": ({}, {}),  # the longest
}  # variant: changes of the network, changes of the training
SUMMARISED = ("median_translation_m", "median_rotation_deg", "within_95_pose")


@dataclass(frozen=True)
class Sources:
    """Drives of one world as ``frames_of`` names them, by what they are for."""

    learnt: str = "world:3:1,2,3"
    others: str = "world:3:21,22,23"  # that tell how sure the network may be
    tested: str = "world:3:11,12,13"


@dataclass(frozen=True)
class Drives:
    """The frames of ``Sources``."""

    learnt: PosedFrames
    others: PosedFrames
    tested: PosedFrames


def ablation(
    sources: Sources,
    seeds: Sequence[int],
    training: VLocNetTrainingConfig,
    out: Path,
    tell: Callable[[Row], None],
) -> list[Row]:
    """The summary of the reduced network's variants; goes on where a run in ``out`` stopped.

    Raises:
        KeptRowsError: the rows in ``out`` are of other frames or values.
    """
    values = training.model_dump(exclude={"device", "checkpoint_every"})
    kept = KeptRows(out / ROWS, asdict(sources) | values)
    drives = Drives(
        _kept_frames(sources.learnt, "train", out),
        _kept_frames(sources.others, "train", out),
        _kept_frames(sources.tested, "test", out),
    )
    return ablation_summary(ablation_rows(drives, seeds, REDUCED, training, out, tell, kept))


def _kept_frames(source: str, split: str, folder: Path) -> PosedFrames:
    """Frames at the reduced network's size; a simulated drive takes longer to draw than to read."""
    file = folder / f"frames-{hashlib.sha256(f'{source} {split}'.encode()).hexdigest()[:12]}.npz"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        frames_of(source, split, REDUCED).save(file)
    return PosedFrames.load(file)


def ablation_rows(
    drives: Drives,
    seeds: Sequence[int],
    network: VLocNetConfig,
    training: VLocNetTrainingConfig,
    out: Path | None = None,
    tell: Callable[[Row], None] = lambda _: None,
    kept: KeptRows | None = None,
) -> list[Row]:
    """One row a variant and seed: the same frames, steps and batches for all variants.

    Multitask steps are joint, so that each teaches the pose stream as a single-task step does. The
    runs lie in ``out``, from which an interrupted one goes on; rows in ``kept`` are not made again.
    """
    kept = kept or KeptRows()

    def judged(variant: str, seed: int) -> Row:
        of_network, of_training = ABLATIONS[variant]
        config = training.model_copy(update={"seed": seed} | of_training)
        folder = None if out is None else out / f"{variant.replace(' ', '_')}-{seed}"
        own = network.model_copy(update=of_network)
        model = train(drives.learnt, own, config, folder, others=drives.others)
        answers = predict(model.network, drives.tested)
        found = figures(answers, drives.tested) | trust_figures(model, answers, drives.tested)
        return {"variant": variant, "seed": seed} | found

    rows: list[Row] = []
    for variant, seed in itertools.product(ABLATIONS, seeds):
        rows.append(kept.row(f"{variant}, seed {seed}", partial(judged, variant, seed)))
        tell(rows[-1])
    return rows


def ablation_summary(rows: Sequence[Row]) -> list[Row]:
    """Mean over seeds of the figures of each variant, and the seeds' spread of the errors."""
    result: list[Row] = []
    for variant in dict.fromkeys(str(row["variant"]) for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        summary: Row = {"variant": variant, "seeds": len(own)}
        for name in SUMMARISED:
            values = np.array([row[name] for row in own], np.float64)
            summary[name] = float(values.mean())
            if name.startswith("median"):
                summary[f"{name}_spread"] = float(values.std())
        result.append(summary)
    return result
