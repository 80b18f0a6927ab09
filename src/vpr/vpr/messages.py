"""Records from ROS messages, read by their fields: rclpy's and rosbags' messages are alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from vpr.geometry import pose_from_quaternion
from vpr.images.decoding import ImageError, decode_compressed, decode_image
from vpr.records import (
    CameraModel,
    ClosureState,
    Covariance,
    GpsFix,
    Image,
    Keyframe,
    LoopClosure,
    MatchSource,
    PlaceMatch,
    PlaceMatches,
    Pose,
)

COVARIANCE_TYPE_UNKNOWN = 0  # sensor_msgs/NavSatFix


def stamp_ns(stamp: Any) -> int:
    """Integer nanoseconds of a stamp."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def pose_of(message: Any) -> Pose:
    """4x4 pose of a message.

    Raises:
        ValueError: not finite, or a zero quaternion.
    """
    p, q = message.position, message.orientation
    return pose_from_quaternion((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))


def covariance_of(message: Any) -> Covariance | None:
    """6x6 covariance; None where the sender left it all zeros."""
    covariance = np.asarray(message.covariance, dtype=np.float64).reshape(6, 6)
    return covariance if np.any(covariance) else None


def fix_of(message: Any) -> GpsFix:
    """Library fix of a NavSatFix; covariance None where its type is unknown."""
    known = message.position_covariance_type != COVARIANCE_TYPE_UNKNOWN
    covariance = np.asarray(message.position_covariance, dtype=np.float64).reshape(3, 3)
    return GpsFix(
        message.latitude, message.longitude, message.altitude, covariance if known else None
    )


def image_of(message: Any) -> Image:
    """Pixels of an Image or CompressedImage.

    Raises:
        ImageError: see ``vpr.images.decoding``.
    """
    if hasattr(message, "format"):
        return decode_compressed(message.data)
    return decode_image(
        message.encoding,
        message.height,
        message.width,
        message.step,
        message.data,
        bool(message.is_bigendian),
    )


def camera_of(message: Any) -> CameraModel:
    """Intrinsics of a CameraInfo.

    Raises:
        ImageError: a driver that publishes an uncalibrated camera (zero focal length), or numbers
            that no camera has.
    """
    matrix = np.asarray(message.k, dtype=np.float64).reshape(3, 3)
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise ImageError("uncalibrated_camera", "CameraInfo has no focal length: calibrate it")
    centre = matrix[:2, 2]
    if not (0 < centre[0] < message.width and 0 < centre[1] < message.height):
        raise ImageError(
            "impossible_intrinsics",
            f"CameraInfo has its principal point at {centre[0]:.0f}, {centre[1]:.0f}, outside its "
            f"{message.width}x{message.height} image",
        )
    distortion = np.asarray(message.d, dtype=np.float64)
    if distortion.size < 4:
        distortion = np.zeros(5)
    return CameraModel(message.width, message.height, matrix, distortion)


def keyframe_of(message: Any) -> Keyframe:
    """Keyframe of a message.

    Raises:
        ValueError: its odometry is not finite.
    """
    return Keyframe(
        id=int(message.id),
        session=int(message.session),
        stamp_ns=stamp_ns(message.header.stamp),
        descriptor=np.asarray(message.descriptor.data, np.float32),
        model=message.descriptor.model,
        odometry=pose_of(message.odometry.pose) if message.has_odometry else None,
        odometry_covariance=covariance_of(message.odometry) if message.has_odometry else None,
        fix=fix_of(message.fix) if message.has_fix else None,
        frame_id=message.header.frame_id,
    )


def match_of(message: Any) -> PlaceMatch:
    """One place match of a message."""
    return PlaceMatch(
        reference_id=int(message.reference_id),
        reference_session=int(message.reference_session),
        reference_stamp_ns=stamp_ns(message.reference_stamp),
        distance=float(message.distance),
        sequence_score=float(message.sequence_score),
        probability=float(message.probability),
        source=MatchSource(message.source),
    )


def matches_of(message: Any) -> PlaceMatches:
    """Place matches of a message."""
    return PlaceMatches(
        query_id=int(message.query_id),
        query_session=int(message.query_session),
        query_stamp_ns=stamp_ns(message.header.stamp),
        candidates=tuple(map(match_of, message.candidates)),
        searched=int(message.searched),
        explanation=message.explanation,
    )


def closure_of(message: Any) -> LoopClosure:
    """Closure of a message.

    Raises:
        ValueError: its relative pose is not finite, or its state is unknown.
    """
    return LoopClosure(
        query_id=int(message.query_id),
        query_session=int(message.query_session),
        query_stamp_ns=stamp_ns(message.header.stamp),
        reference_id=int(message.reference_id),
        reference_session=int(message.reference_session),
        reference_stamp_ns=stamp_ns(message.reference_stamp),
        state=ClosureState(message.state),
        reason=message.reason,
        probability=float(message.probability),
        inliers=int(message.inliers),
        relative_pose=pose_of(message.relative_pose.pose) if message.has_relative_pose else None,
        covariance=covariance_of(message.relative_pose) if message.has_relative_pose else None,
        rejected_by=message.rejected_by,
    )
