"""RTAB-Map: a node a second from odometry, add_link with an empty answer, its graph on demand.

A link is refused in silence where rtabmap::Rtabmap::addLink refuses: an end that is not in the
graph, a pair that is linked already, no transform, or an error after optimisation of more than
RGBD/OptimizeMaxError (3) standard deviations. Its graph here is its odometry, which is exact.
"""

import numpy as np
from host import SECOND, StandInHost, nanoseconds, pose_of_transform, run, set_stamp
from nav_msgs.msg import Odometry
from rclpy.qos import QoSProfile
from rtabmap_msgs.msg import Info, MapGraph
from rtabmap_msgs.srv import AddLink, PublishMap

from vpr.geometry import relative, rotation_angle, translation_norm
from vpr.messages import pose_of
from vpr_nodes.conversions import pose_msg

MAX_ERROR = 3.0  # standard deviations, RGBD/OptimizeMaxError
STANDSTILL = 0.1  # m, RGBD/LinearUpdate
KINDS = (1, 4)  # kGlobalClosure, kUserClosure


class Rtabmap(StandInHost):
    def __init__(self):
        super().__init__("rtabmap")
        self.nodes, self.links, self.next_id, self.newest = {}, [], 1, None
        self.info = self.create_publisher(Info, "rtabmap/info", 1)
        self.graph = self.create_publisher(MapGraph, "rtabmap/mapGraph", QoSProfile(depth=1))
        self.create_subscription(Odometry, "odometry", self.on_odometry, 100)
        self.create_service(AddLink, "rtabmap/add_link", self.on_add_link)
        self.create_service(PublishMap, "rtabmap/publish_map", self.on_publish_map)

    def on_odometry(self, message):
        stamp, pose = nanoseconds(message.header.stamp), pose_of(message.pose.pose)
        if self.newest is not None and stamp - self.newest < SECOND:
            return
        self.newest, node = stamp, self.next_id
        self.next_id += 1
        last = list(self.nodes.values())[-1] if self.nodes else None
        if last is None or translation_norm(relative(last, pose)) > STANDSTILL:
            self.nodes[node] = pose
        info = Info(ref_id=node)
        set_stamp(info.header, stamp)
        self.info.publish(info)
        self.publish_graph()

    def publish_graph(self):
        self.graph.publish(
            MapGraph(
                poses_id=list(self.nodes),
                poses=[pose_msg(pose) for pose in self.nodes.values()],
                links=self.links,
            )
        )

    def on_publish_map(self, request, response):
        if request.graph_only:
            self.publish_graph()
        return response

    def on_add_link(self, request, response):
        refusal = self.refusal(request.link)
        if not refusal:
            self.links.append(request.link)
        self.report(start=request.link.from_id, end=request.link.to_id, refusal=refusal)
        return response

    def refusal(self, link):
        ends = (link.from_id, link.to_id)
        if not set(ends) <= set(self.nodes):
            return "an end is not in the graph"
        if link.type not in KINDS:
            return "not a closure"
        if any({known.from_id, known.to_id} == set(ends) for known in self.links):
            return "linked already"
        measured = pose_of_transform(link.transform)
        information = link.information.reshape(6, 6)
        if not np.allclose(information, information.T) or np.linalg.eigvalsh(information)[0] <= 0:
            return "information is not positive definite"
        error = relative(measured, relative(*(self.nodes[end] for end in ends)))
        sigma = 1.0 / np.sqrt(np.diag(information))
        if translation_norm(error) > MAX_ERROR * sigma[:3].max():
            return f"{translation_norm(error):.2f} m off"
        if rotation_angle(error) > MAX_ERROR * sigma[3:].max():
            return f"{rotation_angle(error):.2f} rad off"
        return ""


run(Rtabmap)
