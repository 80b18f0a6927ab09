"""``vpr eval selfsup``: a trained descriptor against the untouched backbone, as figures.

Both are judged in one run on the same pairs of drives that neither was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.config import EmbeddingConfig, FineTuningConfig, SequenceMatchingConfig
from vpr.evaluation import selfsup_pictures as pictures
from vpr.evaluation.drifting_graph import close_loops
from vpr.evaluation.embedding_curves import (
    best_matches,
    epsilon_curves,
    neighbour_curves,
    separation,
)
from vpr.evaluation.recall import (
    average_precision,
    precision_recall,
    recall_at_full_precision,
)
from vpr.learning.calibrating import Reliability, precision_held, reliability
from vpr.learning.descriptor import EPOCHS_SUFFIX, embed_drives
from vpr.learning.drives import Drives, read_drives
from vpr.learning.errors import TrainingError
from vpr.learning.features import read_features
from vpr.learning.held_out import HeldOutDrives, Verdicts
from vpr.learning.retrieval import RetrievalFigures, distance_matrix, figures_of
from vpr.learning.sampling import kernel_of
from vpr.learning.sequence_look_up import look_up_sequences
from vpr.models.calibration import Calibration
from vpr.models.descriptor_model import DescriptorModel
from vpr.models.embedder import Embedder, descriptor_parts

RADII = (20.0, 30.0)  # m (Fig. 5)
ORIGINAL_LAYERS = ("_blocks.2", "_blocks.4", "_blocks.7", "_blocks.9", "_blocks.12", "last")
EPOCHS_SHOWN = 4
BASE, LEARNED = "backbone", "learned"
Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """One set of drives as the backbone and as the learned descriptor see them."""

    drives: Drives
    base: Embeddings
    learned: Embeddings

    def by_name(self) -> dict[str, Embeddings]:
        """Both, named as in the pictures."""
        return {BASE: self.base, LEARNED: self.learned}

    def drive(self, number: int) -> Judged:
        """One drive of them."""
        rows = self.drives.rows_of([number])
        return Judged(self.drives.subset(rows), self.base[rows], self.learned[rows])


def evaluate_selfsup(
    folders: Sequence[Path],
    model_file: Path,
    out: Path,
    embedding: EmbeddingConfig,
    config: FineTuningConfig,
    sequences: SequenceMatchingConfig,
) -> dict[str, Any]:
    """Figures of all drives together and of each, and every picture, into ``out``.

    Returns:
        what is also worth writing as JSON.

    Raises:
        DatasetError, TrainingError, DescriptorModelError: in words.
    """
    model = DescriptorModel.load(model_file)
    drives, base = embed_drives(folders, None, embedding, progress=True)
    _, learned = embed_drives(folders, model, embedding)
    judged = Judged(drives, base, learned)
    if not best_matches(base, drives, None, config).revisits.any():
        raise TrainingError("no keyframe of these drives is at a place seen before")
    figures = _figures(judged, config)
    if model.heads[-1].normalised:
        figures["sequences"] = _sequence_figures(judged, config, sequences)
    if model.calibration is not None:
        held_out = HeldOutDrives(drives, learned, model, config, sequences)
        figures["calibration"] = _calibration(held_out, model, out)
    _draw_curves(judged, folders, embedding, config, out)
    _draw_drive(judged, model, model_file, embedding, config, out, figures)
    return figures


def _figures(judged: Judged, config: FineTuningConfig) -> dict[str, Any]:
    """Recall and precision of all drives looked up together, and of each by itself."""
    together = {
        name: figures_of(best_matches(values, judged.drives, None, config))
        for name, values in judged.by_name().items()
    }
    within = {
        f"{radius:g} m": {
            name: figures_of(best_matches(values, judged.drives, radius, config)).to_json()
            for name, values in judged.by_name().items()
        }
        for radius in RADII
    }
    each: dict[str, dict[str, dict[str, float]]] = {}
    for number in np.unique(judged.drives.drive).tolist():
        own = judged.drive(number)
        found = {
            name: figures_of(best_matches(values, own.drives, None, config))
            for name, values in own.by_name().items()
            if len(own.drives) > config.exclude_recent_keyframes + 1
        }
        if found and found[BASE].revisits:
            each[judged.drives.names[number]] = {n: f.to_json() for n, f in found.items()}
    return {
        "together": {name: values.to_json() for name, values in together.items()},
        "within": within,
        "misses_gone": _misses_gone(together[BASE], together[LEARNED]),
        "mean_of_drives": {
            name: {key: _mean(each, name, key) for key in ("recall@1", "recall_at_100_precision",
                                                           "average_precision")}
            for name in (BASE, LEARNED)
        },
        "drives": each,
    }  # fmt: skip


def _sequence_figures(
    judged: Judged, config: FineTuningConfig, sequences: SequenceMatchingConfig
) -> dict[str, Any]:
    """All drives looked up together by the robot's sequence matching."""
    figures = {
        name: figures_of(look_up_sequences(values, judged.drives, config, sequences))
        for name, values in judged.by_name().items()
    }
    return {
        "frames": sequences.sequence_length,
        "misses_gone": _misses_gone(figures[BASE], figures[LEARNED]),
    } | {name: values.to_json() for name, values in figures.items()}


def _misses_gone(before: RetrievalFigures, after: RetrievalFigures) -> float:
    """Share of the misses at 100 % precision that the learned descriptor does not have."""
    missed = 1.0 - before.recall_at_full_precision
    return (after.recall_at_full_precision - before.recall_at_full_precision) / max(missed, 1e-9)


def _mean(each: dict[str, dict[str, dict[str, float]]], name: str, key: str) -> float:
    values = [figures[name][key] for figures in each.values()]
    return float(np.mean(values)) if values else 0.0


def _calibration(held_out: HeldOutDrives, model: DescriptorModel, out: Path) -> dict[str, Any]:
    """Whether the stored probabilities and thresholds hold on these drives."""
    parts = {
        "single images": (model.calibration, held_out.image_matches),
        "sequences": (model.sequence_calibration, held_out.sequence_matches),
    }
    result: dict[str, Any] = {}
    diagrams: dict[str, dict[str, Reliability]] = {}
    for name, (calibration, matching) in parts.items():
        if calibration is None:
            continue
        together, apart = held_out.together(matching), held_out.apart(matching)
        diagrams[name] = {
            f"{kind}, {memory}": diagram
            for memory, verdicts in (("one memory", together), ("a memory each", apart))
            for kind, diagram in _diagrams(verdicts, calibration).items()
        }
        result[name] = {
            "expected_calibration_error": {n: d.expected_error for n, d in diagrams[name].items()},
            "ranked_by_probability": _ranked(together, calibration),
            "thresholds": _thresholds_held(together, calibration),
        }
    pictures.draw_reliability(out / "reliability.png", diagrams)
    return result


def _diagrams(verdicts: Verdicts, calibration: Calibration) -> dict[str, Reliability]:
    """Predicted against observed, of nearest matches and of those behind them."""
    result = {}
    for kind, matches, part in (
        ("nearest", verdicts.best, calibration.best),
        ("further", verdicts.further, calibration.further),
    ):
        probabilities = part(matches.reduced_by(part).distances)
        result[kind] = reliability(probabilities, matches.correct)
    return result


def _ranked(verdicts: Verdicts, calibration: Calibration) -> dict[str, float]:
    """Figures of the nearest matches accepted by their reduced distance, as probabilities rank."""
    nearest = verdicts.best.reduced_by(calibration.best)
    curve = precision_recall(-nearest.distances, nearest.correct, verdicts.revisits)
    return {
        "average_precision": average_precision(curve),
        "recall_at_100_precision": recall_at_full_precision(curve),
    }


def _thresholds_held(verdicts: Verdicts, calibration: Calibration) -> list[dict[str, Any]]:
    """On how many drives each threshold's precision holds, and what it finds."""
    nearest = verdicts.best.reduced_by(calibration.best)
    result = []
    for threshold in calibration.thresholds:
        accepted = nearest.distances <= threshold.distance
        held = precision_held(nearest, threshold.distance, threshold.wanted_precision)
        here = {
            "drives_held": int(held.sum()),
            "drives_judged": len(held),
            "precision_here": float(nearest.correct[accepted].mean()) if accepted.any() else None,
            "accepted_here": int(accepted.sum()),
            "recall_here": float(nearest.correct[accepted].sum() / max(verdicts.revisits, 1)),
        }
        result.append(threshold.model_dump() | here)
    return result


def _draw_curves(
    judged: Judged,
    folders: Sequence[Path],
    embedding: EmbeddingConfig,
    config: FineTuningConfig,
    out: Path,
) -> None:
    """Figs. 5 to 8, over all drives."""
    drives = judged.drives
    layers = _layer_embeddings(folders, embedding) | judged.by_name()
    panels = {}
    for radius in RADII:
        lines = {}
        for name, values in layers.items():
            matches = best_matches(values, drives, radius, config)
            curve = precision_recall(
                -matches.distances[:, 0], matches.correct[:, 0], int(matches.revisits.sum())
            )
            lines[name] = (curve.recall, curve.precision)
        panels[f"within {radius:g} m"] = lines
    pictures.draw_layers(out / "fig5_layers.png", panels)
    _draw_neighbours(judged, config, out)
    apart = {LEARNED: judged.learned} | layers
    separated = {name: separation(values, drives, config) for name, values in apart.items()}
    pictures.draw_separation(out / "fig8_separation.png", separated)


def _draw_neighbours(judged: Judged, config: FineTuningConfig, out: Path) -> None:
    """Figs. 6 and 7."""
    same = f"within {config.same_place_distance:g} m, same way"
    truths: dict[str, float | None] = {same: None, f"within {RADII[0]:g} m": RADII[0]}
    for file, curves, level in (
        ("fig6_epsilon_nn.png", epsilon_curves, "L2 distance"),
        ("fig7_k_nn.png", neighbour_curves, "neighbours"),
    ):
        found = {
            truth: {
                name: curves(values, judged.drives, radius, config)
                for name, values in judged.by_name().items()
            }
            for truth, radius in truths.items()
        }
        pictures.draw_neighbours(out / file, found, level)


def _draw_drive(
    judged: Judged,
    model: DescriptorModel,
    model_file: Path,
    embedding: EmbeddingConfig,
    config: FineTuningConfig,
    out: Path,
    figures: dict[str, Any],
) -> None:
    """Figs. 2, 3, 4 and 9, of the drive with the most keyframes."""
    number = int(np.bincount(judged.drives.drive).argmax())
    own = judged.drive(number)
    matrices = kernel_of(config).matrices(own.drives.viewpoints, own.drives.viewpoints)
    pictures.draw_supervision(out / "fig2_supervision.png", own.drives, matrices)
    pictures.draw_tsne(out / "fig4_tsne.png", own.drives, own.learned)
    epochs = {"backbone": distance_matrix(own.base, own.base)}
    for file in _shown(sorted(model_file.with_suffix(EPOCHS_SUFFIX).glob("epoch_*.safetensors"))):
        snapshot = DescriptorModel.load(file)
        if not model.trunk:
            values = snapshot.forward_from(snapshot.names[0], own.base)
            epochs[f"epoch {int(file.stem.split('_')[1])}"] = distance_matrix(values, values)
    epochs["best"] = distance_matrix(own.learned, own.learned)
    pictures.draw_epochs(out / "fig3_epochs.png", epochs, matrices.Rt)
    if model.calibration is not None and model.calibration.thresholds:
        strictest = min(threshold.distance for threshold in model.calibration.thresholds)
        impostors = model.impostor_distances(own.learned)
        stages = close_loops(
            own.learned, own.drives, impostors, model.calibration.best, strictest, config
        )
        pictures.draw_graph_stages(out / "fig9_pose_graph.png", stages)
        before, after = stages[-1].errors
        figures["pose_graph"] = {
            "drive": own.drives.names[number],
            "rmse_measured_m": before,
            "rmse_optimised_m": after,
            "closures": len(stages[-1].closures),
        }


def _shown(files: list[Path]) -> list[Path]:
    if len(files) <= EPOCHS_SHOWN - 1:
        return files
    return [files[i] for i in np.linspace(0, len(files) - 1, EPOCHS_SHOWN - 1).astype(int)]


def _layer_embeddings(folders: Sequence[Path], embedding: EmbeddingConfig) -> dict[str, Embeddings]:
    """Several layers of the backbone by themselves, each averaged over the image."""
    if embedding.backbone != "efficientnet_lite0":
        names: tuple[str, ...] = tuple(dict.fromkeys((*embedding.layers, "last")))
    else:
        names = ORIGINAL_LAYERS
    all_layers = embedding.model_copy(
        update={
            "model": "",
            "layers": list(names),
            "layer_grids": ["1x1"] * len(names),
            "layer_gem_p": [3.0] * len(names),
            "layer_weights": [1.0] * len(names),
        }
    )
    embedder = Embedder(all_layers)
    values = read_features(read_drives(folders), embedder, progress=False).values
    widths = embedder.part_widths()
    ends = np.cumsum(widths)[:-1]
    result = {}
    for part, columns in zip(descriptor_parts(all_layers), np.split(values, ends, 1), strict=True):
        lengths = np.linalg.norm(columns, axis=1, keepdims=True)
        result[part.layer] = columns / np.maximum(lengths, 1e-12)
    return result
