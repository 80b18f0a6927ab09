"""A Kimera-style back end: takes in pose_graph by the rules of KimeraPgmoInterface.

processIncrementalPoseGraph begins at a robot's node 0, takes an ODOM edge only from a node it
knows to the next one of the same robot, and calls a closure between unknown nodes an error.
With a parameter ``front_end`` it also publishes nodes of its own, as Kimera-VIO does.
"""

import numpy as np
from host import SECOND, StandInHost, nanoseconds, run
from nav_msgs.msg import Odometry
from pose_graph_tools_msgs.msg import PoseGraph, PoseGraphEdge, PoseGraphNode

from vpr.geometry import relative, translation_norm
from vpr.messages import pose_of


class Kimera(StandInHost):
    def __init__(self):
        super().__init__("kimera_pgmo")
        self.poses, self.newest = {}, None
        self.create_subscription(PoseGraph, "pose_graph", self.on_graph, 5000)
        if self.declare_parameter("front_end", False).value:
            self.nodes = self.create_publisher(PoseGraph, "pose_graph_incremental", 100)
            self.create_subscription(Odometry, "odometry", self.on_odometry, 100)

    def on_odometry(self, message):
        stamp = nanoseconds(message.header.stamp)
        if self.newest is None or stamp - self.newest >= SECOND // 2:
            self.newest, key = stamp, len(self.poses)
            self.poses[0, key] = pose_of(message.pose.pose)
            node = PoseGraphNode(header=message.header, key=key, pose=message.pose.pose)
            self.nodes.publish(PoseGraph(header=message.header, nodes=[node]))

    def on_graph(self, message):
        for node in message.nodes:
            if node.key == 0:
                self.poses[node.robot_id, 0] = pose_of(node.pose)
        for edge in message.edges:
            self.on_edge(edge, [pose_of(node.pose) for node in message.nodes])

    def on_edge(self, edge, poses):
        start, end = (edge.robot_from, edge.key_from), (edge.robot_to, edge.key_to)
        if edge.type == PoseGraphEdge.ODOM:
            followed = start in self.poses and end not in self.poses
            followed &= start[0] == end[0] and end[1] == start[1] + 1
            measured = self.poses.get(start, np.eye(4)) @ pose_of(edge.pose)
            self.poses[end] = measured
            off = translation_norm(relative(poses[0], measured))
            self.report(kind="odom", start=start, end=end, in_order=followed, metres=off)
            return
        known = start in self.poses and end in self.poses
        kind = {PoseGraphEdge.LOOPCLOSE: "closure", PoseGraphEdge.REJECTED_LOOPCLOSE: "rejected"}
        ends = (self.poses[end] for end in (start, end)) if known else (np.eye(4), np.eye(4))
        error = relative(pose_of(edge.pose), relative(*ends))
        covariance = np.reshape(edge.covariance, (6, 6))
        self.report(
            kind=kind.get(edge.type, "unknown"),
            start=start,
            end=end,
            known=known,
            metres=translation_norm(error),
            variances=np.diag(covariance).tolist(),
        )


run(Kimera)
