"""Records of the library to ROS messages; ``vpr.messages`` reads them back."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose as PoseMsg
from geometry_msgs.msg import PoseWithCovariance
from sensor_msgs.msg import NavSatFix, NavSatStatus
from vpr_interfaces.msg import Descriptor as DescriptorMsg
from vpr_interfaces.msg import Keyframe as KeyframeMsg
from vpr_interfaces.msg import LoopClosure as LoopClosureMsg
from vpr_interfaces.msg import PlaceMatch as PlaceMatchMsg
from vpr_interfaces.msg import PlaceMatches as PlaceMatchesMsg

from vpr.geometry import quaternion_of
from vpr.records import (
    Covariance,
    GpsFix,
    Keyframe,
    LoopClosure,
    PlaceMatch,
    PlaceMatches,
    Pose,
)


def time_msg(nanoseconds: int) -> Time:
    """Stamp of integer nanoseconds."""
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


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
    message.candidates = [match_msg(match) for match in matches.candidates]
    return message


def match_msg(match: PlaceMatch) -> PlaceMatchMsg:
    """Message of one place match."""
    return PlaceMatchMsg(
        reference_id=match.reference_id,
        reference_session=match.reference_session,
        reference_stamp=time_msg(match.reference_stamp_ns),
        distance=float(match.distance),
        sequence_score=float(match.sequence_score),
        probability=float(match.probability),
        source=int(match.source),
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
