"""Keyframes of drives looked up by sequence matching, as the robot does it, and judged by GPS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vpr.config import FineTuningConfig, SequenceMatchingConfig
from vpr.geometry import pose_from_xy_yaw
from vpr.learning.drives import Drives
from vpr.learning.retrieval import Matches, same_place, searchable
from vpr.places.recognizer import PlaceRecognizer

MODEL = "looked up"


def look_up_sequences(
    embeddings: NDArray[np.float32],
    drives: Drives,
    config: FineTuningConfig,
    sequences: SequenceMatchingConfig,
) -> Matches:
    """Every row matched against all earlier ones by the robot's own place recognition.

    Each drive is a session, GPS plays the odometry, and every row is a keyframe. What was just
    seen is excluded as for single images.

    Args:
        embeddings: (N, d) unit length, of all rows, in order of time.

    Returns:
        matches whose ``distances`` are sequence scores with the sign turned.

    Raises:
        ConfigError, WeightsError: the method's own transform is missing or of another model.
    """
    recognizer = PlaceRecognizer(_over_keyframes(config, sequences))
    rows, views = np.arange(len(drives)), drives.viewpoints
    allowed = searchable(rows, drives.drive, config.exclude_recent_keyframes)
    same = same_place(views, views, config) & allowed
    found, scores, searched = [], [], []
    for row in rows.tolist():
        if row and drives.drive[row] != drives.drive[row - 1]:
            recognizer.begin_session()
        x, y = views.positions[row].tolist()
        pose = pose_from_xy_yaw(x, y, float(views.headings[row]))
        seen = recognizer.observe(row * 10**9, embeddings[row], MODEL, pose)
        candidates = () if seen.matches is None else seen.matches.candidates
        missing = config.candidates - len(candidates)
        found.append([match.reference_id for match in candidates] + [-1] * missing)
        scores.append([match.sequence_score for match in candidates] + [-np.inf] * missing)
        searched.append(0 if seen.matches is None else seen.matches.searched)
    references, distances = np.array(found, np.int64), -np.array(scores, np.float64)
    queries = np.flatnonzero(references[:, 0] >= 0)
    references, distances = references[queries], distances[queries]
    return Matches(
        queries,
        references,
        distances,
        same[queries[:, None], references] & (references >= 0),
        same[queries].any(axis=1),
        np.array(searched, np.int64)[queries],
    )


def keyframe_spacing(drives: Drives, sequences: SequenceMatchingConfig) -> float:
    """Median metres between two frames that sequences of these drives are compared by."""
    if sequences.alignment_step > 0.0:
        return sequences.alignment_step
    steps = np.linalg.norm(np.diff(drives.viewpoints.positions, axis=0), axis=1)
    return float(np.median(steps[np.diff(drives.drive) == 0]))


def _over_keyframes(
    config: FineTuningConfig, sequences: SequenceMatchingConfig
) -> SequenceMatchingConfig:
    """The robot's configuration for rows that are keyframes already, a second apart."""
    return sequences.model_copy(
        update={
            "keyframe_translation": 0.0,
            "keyframe_rotation": 0.0,
            "odometry_max_speed": float("inf"),
            "exclude_recent_time": 0.0,
            "exclude_recent_keyframes": config.exclude_recent_keyframes,
            "top_k": config.candidates,
            "min_probability": 0.0,
        }
    )
