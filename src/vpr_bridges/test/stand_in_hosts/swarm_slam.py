"""Swarm-SLAM's back end: keyframes from odometry, closures as factors between keyframes it knows.

decentralized_pgo.cpp makes a BetweenFactor of every successful closure without a look at its ends:
one to a keyframe that does not exist ends the optimisation, so here that is an error.
"""

from cslam_common_interfaces.msg import IntraRobotLoopClosure, KeyframeOdom
from host import StandInHost, pose_of_transform, run
from nav_msgs.msg import Odometry

from vpr.geometry import relative, rotation_angle, translation_norm
from vpr.messages import pose_of

KEYFRAME_DISTANCE = 0.5  # m


class SwarmSlam(StandInHost):
    def __init__(self):
        super().__init__("cslam_pose_graph_manager")
        self.poses = {}
        self.keyframes = self.create_publisher(KeyframeOdom, "cslam/keyframe_odom", 100)
        self.create_subscription(Odometry, "odometry", self.on_odometry, 100)
        self.create_subscription(
            IntraRobotLoopClosure, "cslam/intra_robot_loop_closure", self.on_closure, 1000
        )

    def on_odometry(self, message):
        pose = pose_of(message.pose.pose)
        last = self.poses.get(len(self.poses) - 1)
        if last is None or translation_norm(relative(last, pose)) >= KEYFRAME_DISTANCE:
            self.keyframes.publish(KeyframeOdom(id=len(self.poses), odom=message))
            self.poses[len(self.poses)] = pose

    def on_closure(self, message):
        ends = (message.keyframe0_id, message.keyframe1_id)
        if not (message.success and set(ends) <= set(self.poses)):
            self.report(ends=ends, error="unknown keyframe or no success")
            return
        measured = pose_of_transform(message.transform)
        error = relative(measured, relative(*(self.poses[end] for end in ends)))
        self.report(ends=ends, metres=translation_norm(error), radians=rotation_angle(error))


run(SwarmSlam)
