"""Records of the library to and from ROS messages."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose as PoseMsg
from geometry_msgs.msg import PoseWithCovariance
from sensor_msgs.msg import CameraInfo, NavSatFix, NavSatStatus
from vpr_interfaces.msg import Descriptor as DescriptorMsg
from vpr_interfaces.msg import Keyframe as KeyframeMsg
from vpr_interfaces.msg import LoopClosure as LoopClosureMsg
from vpr_interfaces.msg import PlaceMatch as PlaceMatchMsg
from vpr_interfaces.msg import PlaceMatches as PlaceMatchesMsg

from vpr.geometry import pose_from_quaternion, quaternion_of
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


def stamp_ns(stamp: Time) -> int:
    """Integer nanoseconds of a stamp."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def time_msg(nanoseconds: int) -> Time:
    """Stamp of integer nanoseconds."""
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


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


def camera_of(message: CameraInfo) -> CameraModel:
    """Intrinsics of a CameraInfo.

    Raises:
        ImageError: a driver that publishes an uncalibrated camera (zero focal length).
    """
    matrix = np.asarray(message.k, dtype=np.float64).reshape(3, 3)
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise ImageError("uncalibrated_camera", "CameraInfo has no focal length: calibrate it")
    distortion = np.asarray(message.d, dtype=np.float64)
    if distortion.size < 4:
        distortion = np.zeros(5)
    return CameraModel(message.width, message.height, matrix, distortion)


def pose_of(message: PoseMsg) -> Pose:
    """4x4 pose of a message.

    Raises:
        ValueError: not finite, or a zero quaternion.
    """
    p, q = message.position, message.orientation
    return pose_from_quaternion((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))


def pose_msg(pose: Pose) -> PoseMsg:
    """Message of a 4x4 pose."""
    message = PoseMsg()
    message.position.x, message.position.y, message.position.z = pose[:3, 3].tolist()
    o = message.orientation
    o.x, o.y, o.z, o.w = quaternion_of(pose).tolist()
    return message


def pose_with_covariance_msg(pose: Pose, covariance: Covariance | None) -> PoseWithCovariance:
    """Message of a pose; an unknown covariance is all zeros, as ROS has it."""
    message = PoseWithCovariance(pose=pose_msg(pose))
    if covariance is not None:
        message.covariance = covariance.reshape(36).tolist()
    return message


def covariance_of(message: PoseWithCovariance) -> Covariance | None:
    """6x6 covariance; None where the sender left it all zeros."""
    covariance = np.asarray(message.covariance, dtype=np.float64).reshape(6, 6)
    return covariance if np.any(covariance) else None


def fix_of(message: NavSatFix) -> GpsFix:
    """Library fix of a NavSatFix; covariance None where its type is unknown."""
    known = message.position_covariance_type != NavSatFix.COVARIANCE_TYPE_UNKNOWN
    covariance = np.asarray(message.position_covariance, dtype=np.float64).reshape(3, 3)
    return GpsFix(
        message.latitude, message.longitude, message.altitude, covariance if known else None
    )


def fix_msg(fix: GpsFix) -> NavSatFix:
    """NavSatFix of a library fix."""
    message = NavSatFix(latitude=fix.latitude, longitude=fix.longitude, altitude=fix.altitude)
    message.status.status = NavSatStatus.STATUS_FIX
    if fix.covariance is not None:
        message.position_covariance = fix.covariance.reshape(9).tolist()
        message.position_covariance_type = NavSatFix.COVARIANCE_TYPE_KNOWN
    return message


def float_array(values: Any) -> array[float]:
    """What a float32[] field takes quickest (a numpy array is copied element by element)."""
    result = array("f")
    result.frombytes(np.ascontiguousarray(values, dtype=np.float32).tobytes())
    return result


def descriptor_msg(values: Any, model: str) -> DescriptorMsg:
    """Descriptor message without its header."""
    return DescriptorMsg(model=model, data=float_array(values))


def keyframe_msg(keyframe: Keyframe) -> KeyframeMsg:
    """Message of a keyframe."""
    message = KeyframeMsg(id=keyframe.id, session=keyframe.session)
    message.header.stamp = time_msg(keyframe.stamp_ns)
    message.header.frame_id = keyframe.frame_id
    if keyframe.odometry is not None:
        message.has_odometry = True
        message.odometry = pose_with_covariance_msg(keyframe.odometry, keyframe.odometry_covariance)
    if keyframe.fix is not None:
        message.has_fix = True
        message.fix = fix_msg(keyframe.fix)
        message.fix.header.stamp = message.header.stamp
    message.descriptor = descriptor_msg(keyframe.descriptor, keyframe.model)
    message.descriptor.header = message.header
    return message


def keyframe_of(message: KeyframeMsg) -> Keyframe:
    """Keyframe of a message.

    Raises:
        ValueError: its odometry is not finite.
    """
    return Keyframe(
        id=message.id,
        session=message.session,
        stamp_ns=stamp_ns(message.header.stamp),
        descriptor=np.frombuffer(message.descriptor.data, np.float32),
        model=message.descriptor.model,
        odometry=pose_of(message.odometry.pose) if message.has_odometry else None,
        odometry_covariance=covariance_of(message.odometry) if message.has_odometry else None,
        fix=fix_of(message.fix) if message.has_fix else None,
        frame_id=message.header.frame_id,
    )


def matches_msg(matches: PlaceMatches, frame_id: str) -> PlaceMatchesMsg:
    """Message of place matches."""
    message = PlaceMatchesMsg(
        query_id=matches.query_id,
        query_session=matches.query_session,
        searched=matches.searched,
        explanation=matches.explanation,
    )
    message.header.stamp = time_msg(matches.query_stamp_ns)
    message.header.frame_id = frame_id
    message.candidates = [
        PlaceMatchMsg(
            reference_id=match.reference_id,
            reference_session=match.reference_session,
            reference_stamp=time_msg(match.reference_stamp_ns),
            distance=float(match.distance),
            sequence_score=float(match.sequence_score),
            probability=float(match.probability),
            source=int(match.source),
        )
        for match in matches.candidates
    ]
    return message


def matches_of(message: PlaceMatchesMsg) -> PlaceMatches:
    """Place matches of a message."""
    candidates = tuple(
        PlaceMatch(
            reference_id=match.reference_id,
            reference_session=match.reference_session,
            reference_stamp_ns=stamp_ns(match.reference_stamp),
            distance=match.distance,
            sequence_score=match.sequence_score,
            probability=match.probability,
            source=MatchSource(match.source),
        )
        for match in message.candidates
    )
    return PlaceMatches(
        query_id=message.query_id,
        query_session=message.query_session,
        query_stamp_ns=stamp_ns(message.header.stamp),
        candidates=candidates,
        searched=message.searched,
        explanation=message.explanation,
    )


def closure_msg(closure: LoopClosure, frame_id: str) -> LoopClosureMsg:
    """Message of a closure."""
    message = LoopClosureMsg(
        query_id=closure.query_id,
        query_session=closure.query_session,
        reference_id=closure.reference_id,
        reference_session=closure.reference_session,
        reference_stamp=time_msg(closure.reference_stamp_ns),
        state=int(closure.state),
        reason=closure.reason,
        rejected_by=closure.rejected_by,
        probability=float(closure.probability),
        inliers=int(closure.inliers),
    )
    message.header.stamp = time_msg(closure.query_stamp_ns)
    message.header.frame_id = frame_id
    if closure.relative_pose is not None:
        message.has_relative_pose = True
        message.relative_pose = pose_with_covariance_msg(closure.relative_pose, closure.covariance)
    return message


def closure_of(message: LoopClosureMsg) -> LoopClosure:
    """Closure of a message.

    Raises:
        ValueError: its relative pose is not finite, or its state is unknown.
    """
    return LoopClosure(
        query_id=message.query_id,
        query_session=message.query_session,
        query_stamp_ns=stamp_ns(message.header.stamp),
        reference_id=message.reference_id,
        reference_session=message.reference_session,
        reference_stamp_ns=stamp_ns(message.reference_stamp),
        state=ClosureState(message.state),
        reason=message.reason,
        probability=message.probability,
        inliers=message.inliers,
        relative_pose=pose_of(message.relative_pose.pose) if message.has_relative_pose else None,
        covariance=covariance_of(message.relative_pose) if message.has_relative_pose else None,
        rejected_by=message.rejected_by,
    )
