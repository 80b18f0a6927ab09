"""VLocNet++ beside the nearest keyframe, and what each of its ideas brings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from vpr.config import EmbeddingConfig
from vpr.models.embedder import Embedder
from vpr.models.vlocnet import VLocNetConfig
from vpr.pose_regression.frames import FramesError, PosedFrames
from vpr.pose_regression.model import COVERAGE, PoseModel
from vpr.pose_regression.prediction import Answers, figures, pose_errors, pose_figures, predict
from vpr.pose_regression.training import VLocNetTrainingConfig, train

REVISIT = (0.5, 30.0)  # m and degrees within which a learnt frame makes a frame a revisit
# what an ablation on a CPU can afford
REDUCED = VLocNetConfig(image_width=96, image_height=64, width=8, units=(1, 1, 3, 1))
BATCH = 16  # images described together

Row = dict[str, object]


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

    ``within_95_translation`` and ``within_95_rotation`` are the shares of frames whose error lies
    within the ellipsoid of 95 % probability; ``familiar`` is the share taken for its own world.
    """
    metres, degrees = pose_errors(answers.poses, frames.poses)
    radius = float(np.sqrt(chi2.ppf(COVERAGE, 3)))
    certainty = model.certainty
    return {
        "within_95_translation": float(np.mean(metres <= radius * certainty.translation)),
        "within_95_rotation": float(np.mean(np.radians(degrees) <= radius * certainty.rotation)),
        "familiar": float(np.mean(model.strangeness(answers.embeddings) <= certainty.familiar)),
    }


ABLATIONS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "multitask": ({}, {}),
    "single task": ({"tasks": ("pose",)}, {}),
    "single task, Euclidean loss": ({"tasks": ("pose",)}, {"geometric_consistency": False}),
    "single task, concatenation": ({"tasks": ("pose",), "fusion": "concatenation"}, {}),
}  # variant: changes of the network, changes of the training


def ablation_rows(
    learnt: PosedFrames,
    tested: PosedFrames,
    seeds: Sequence[int],
    network: VLocNetConfig,
    training: VLocNetTrainingConfig,
    variants: Sequence[str] = tuple(ABLATIONS),
    tell: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """One row a variant and seed: the same frames, steps and batches for all variants.

    Multitask steps are joint, so that each teaches the pose stream as a single-task step does.
    """
    rows: list[Row] = []
    for seed in seeds:
        for variant in variants:
            of_network, of_training = ABLATIONS[variant]
            common = {"seed": seed, "single_steps": 0, "schedule": "joint"}
            config = training.model_copy(update=common | of_training)
            model = train(learnt, network.model_copy(update=of_network), config)
            found = figures(predict(model.network, tested), tested)
            rows.append({"variant": variant, "seed": seed} | dict(found))
            tell(str(rows[-1]))
    return rows


def ablation_summary(rows: Sequence[Row]) -> list[Row]:
    """Mean over seeds of the median errors of each variant, and the seeds' spread."""
    result: list[Row] = []
    for variant in dict.fromkeys(str(row["variant"]) for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        summary: Row = {"variant": variant, "seeds": len(own)}
        for name in ("median_translation_m", "median_rotation_deg"):
            values = np.array([row[name] for row in own], np.float64)
            summary |= {name: float(values.mean()), f"{name}_spread": float(values.std())}
        result.append(summary)
    return result
