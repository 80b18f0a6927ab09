"""What flows between the stages: keyframes, place matches and loop closures.

The library's own vocabulary, one class for each message of ``vpr_interfaces``. Stamps are integer
nanoseconds. A pose is a 4x4 float64 homogeneous matrix ``a_T_b`` that takes points of frame b to
frame a (REP-103 axes, metres).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Pose = NDArray[np.float64]  # (4, 4)
Covariance = NDArray[np.float64]  # (6, 6), order x y z roll pitch yaw as in geometry_msgs
Image = NDArray[np.uint8]  # (H, W, 3) BGR or (H, W) grey


class MatchSource(IntEnum):
    """Which stage proposed a place match."""

    SINGLE = 0
    SEQUENCE = 1
    GNN = 2


class ClosureState(IntEnum):
    """Verdict on a loop-closure candidate. Every candidate ends VERIFIED or REJECTED."""

    CANDIDATE = 0
    VERIFIED = 1
    REJECTED = 2


@dataclass(frozen=True)
class GpsFix:
    """A geodetic position, WGS-84 degrees and metres above the ellipsoid."""

    latitude: float
    longitude: float
    altitude: float
    covariance: NDArray[np.float64] | None = None  # (3, 3) east north up, m^2; None when unknown


@dataclass(frozen=True)
class Keyframe:
    """One remembered view. ``id`` is unique in a map, over all sessions, and ascends with time."""

    id: int
    session: int
    stamp_ns: int
    descriptor: NDArray[np.float32]  # (D,), L2-normalised
    model: str  # name@weights-hash of the model that made the descriptor
    odometry: Pose | None = None  # odom_T_base at the image stamp; None without odometry
    odometry_covariance: Covariance | None = None
    fix: GpsFix | None = None
    frame_id: str = ""  # the camera's optical frame


@dataclass(frozen=True)
class PlaceMatch:
    """One remembered place that looks like the query."""

    reference_id: int
    reference_session: int
    reference_stamp_ns: int
    distance: float  # cosine distance of the single descriptors, 0 .. 2
    sequence_score: float  # aligned-sequence similarity, higher is better
    probability: float  # P(same place), 0 .. 1
    source: MatchSource


@dataclass(frozen=True)
class PlaceMatches:
    """The answer to one query, best candidate first; ``explanation`` says why it may be empty."""

    query_id: int
    query_session: int
    query_stamp_ns: int
    candidates: tuple[PlaceMatch, ...]
    searched: int  # how many reference places were compared
    explanation: str


@dataclass(frozen=True)
class LoopClosure:
    """A candidate pair with its verdict.

    ``relative_pose`` is reference_T_query between the two base_link frames (camera frames where
    no extrinsics are known), metres; ``covariance`` is in the same tangent order as geometry_msgs.
    """

    query_id: int
    query_session: int
    query_stamp_ns: int
    reference_id: int
    reference_session: int
    reference_stamp_ns: int
    state: ClosureState
    reason: str  # in words, for a person
    probability: float = 0.0
    inliers: int = 0
    relative_pose: Pose | None = None
    covariance: Covariance | None = None
    rejected_by: str = ""  # short key for counting, e.g. "too_few_inliers"; empty when verified


@dataclass(frozen=True)
class CameraModel:
    """Pinhole intrinsics of an image as it is received, pixels.

    ``assumed`` is True when no CameraInfo was ever seen and the field of view is a guess.
    """

    width: int
    height: int
    matrix: NDArray[np.float64]  # (3, 3)
    distortion: NDArray[np.float64] = field(default_factory=lambda: np.zeros(5))
    assumed: bool = False

    @classmethod
    def from_horizontal_fov(cls, width: int, height: int, fov_deg: float) -> CameraModel:
        """Square pixels, centred principal point; marked as assumed."""
        focal = 0.5 * width / np.tan(np.radians(fov_deg) / 2.0)
        matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        return cls(width, height, matrix, assumed=True)
