"""What our own nodes publish on a drive round a circle."""

from __future__ import annotations

import numpy as np
from nav_msgs.msg import Odometry
from vpr_interfaces.msg import Keyframe, LoopClosure, PoseGraph, PoseGraphNode

from vpr.geometry import pose_from_xy_yaw, relative
from vpr.records import Pose
from vpr_nodes.conversions import pose_msg, pose_with_covariance_msg, time_msg

SECOND = 10**9
RADIUS, LAP = 5.0, 30.0  # m, s
COVARIANCE = np.diag([0.01] * 3 + [0.001] * 3)


def pose_at(seconds: float) -> Pose:
    """odom_T_base on the circle."""
    angle = 2 * np.pi * seconds / LAP
    return pose_from_xy_yaw(RADIUS * np.sin(angle), RADIUS * (1 - np.cos(angle)), angle)


def odometry(seconds: float) -> Odometry:
    """Odometry at a time."""
    message = Odometry()
    message.header.stamp = time_msg(round(seconds * SECOND))
    message.header.frame_id = "odom"
    message.pose.pose = pose_msg(pose_at(seconds))
    return message


def keyframe(identity: int, seconds: float, session: int = 0) -> Keyframe:
    """A keyframe at a time."""
    message = Keyframe(id=identity, session=session, has_odometry=True)
    message.header.stamp = time_msg(round(seconds * SECOND))
    message.odometry.pose = pose_msg(pose_at(seconds))
    return message


def closure(
    query: int, query_seconds: float, reference: int, reference_seconds: float, off: float = 0.0
) -> LoopClosure:
    """The true closure between two keyframes, or one that is ``off`` metres to the left."""
    pose = relative(pose_at(reference_seconds), pose_at(query_seconds))
    pose[1, 3] += off
    message = LoopClosure(
        query_id=query,
        reference_id=reference,
        state=LoopClosure.VERIFIED,
        has_relative_pose=True,
        relative_pose=pose_with_covariance_msg(pose, COVARIANCE),
        reason="tells the truth" if not off else "does not",
    )
    message.header.stamp = time_msg(round(query_seconds * SECOND))
    message.reference_stamp = time_msg(round(reference_seconds * SECOND))
    return message


def graph(map_T_base: dict[int, Pose], stamps: dict[int, int], session: int = 0) -> PoseGraph:
    """The pose graph's nodes."""
    nodes = [
        PoseGraphNode(
            id=identity,
            session=session,
            stamp=time_msg(stamps[identity]),
            pose=pose_msg(pose),
            anchored=True,
        )
        for identity, pose in map_T_base.items()
    ]
    return PoseGraph(nodes=nodes)
