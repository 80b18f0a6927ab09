"""VINS-Fusion's estimator, and whoever reads loop_fusion's topics: RViz, a planner.

It drives a circle; its world stands still while our correction moves it. What comes back must
have the stamp of what was sent, in order, and be moved by the correction.
"""

import numpy as np
from geometry_msgs.msg import Point32
from host import SECOND, StandInHost, nanoseconds, run, set_stamp
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import ChannelFloat32, PointCloud
from visualization_msgs.msg import MarkerArray

from vpr.geometry import pose_from_xy_yaw
from vpr.messages import pose_of
from vpr_nodes.conversions import pose_msg

RADIUS, SPEED = 5.0, 0.05  # m, rad a step


class VinsFusion(StandInHost):
    def __init__(self):
        super().__init__("vins_estimator")
        self.step, self.last = 0, 0
        self.odometry = self.create_publisher(Odometry, "vins_estimator/odometry", 1000)
        self.keyframe_pose = self.create_publisher(Odometry, "vins_estimator/keyframe_pose", 1000)
        self.extrinsic = self.create_publisher(Odometry, "vins_estimator/extrinsic", 1000)
        self.points = self.create_publisher(PointCloud, "vins_estimator/keyframe_point", 1000)
        self.margin = self.create_publisher(PointCloud, "vins_estimator/margin_cloud", 1000)
        own = "loop_fusion"
        self.create_subscription(Odometry, f"{own}/odometry_rect", self.on_rectified, 1000)
        self.create_subscription(Path, f"{own}/pose_graph_path", self.on_path("pose_graph_path"), 9)
        self.create_subscription(Path, f"{own}/path_1", self.on_path("path_1"), 9)
        self.create_subscription(Path, f"{own}/base_path", self.on_path("base_path"), 9)
        self.create_subscription(
            PointCloud, f"{own}/point_cloud_loop_rect", self.on_cloud("keyframe"), 9
        )
        self.create_subscription(
            PointCloud, f"{own}/margin_cloud_loop_rect", self.on_cloud("margin"), 9
        )
        self.create_subscription(MarkerArray, f"{own}/pose_graph", self.on_markers("graph"), 9)
        self.create_subscription(
            MarkerArray, f"{own}/camera_pose_visual", self.on_markers("camera"), 9
        )
        self.create_timer(0.05, self.drive)

    def drive(self):
        self.step += 1
        angle = SPEED * self.step
        pose = pose_from_xy_yaw(RADIUS * np.cos(angle), RADIUS * np.sin(angle), angle)
        message = Odometry()
        set_stamp(message.header, self.step * SECOND // 10)
        message.header.frame_id = "world"
        message.pose.pose = pose_msg(pose)
        camera = Odometry(header=message.header)
        camera.pose.pose = pose_msg(np.eye(4))
        self.extrinsic.publish(camera)
        self.odometry.publish(message)
        if self.step % 5 == 0:
            self.keyframe_pose.publish(message)
            cloud = PointCloud(header=message.header, points=[Point32(x=1.0), Point32(y=2.0)])
            cloud.channels = [ChannelFloat32(values=[0.1, 0.2, 3.0, 4.0, 5.0])] * 2
            self.points.publish(cloud)
            self.margin.publish(cloud)

    def on_rectified(self, message):
        stamp = nanoseconds(message.header.stamp)
        angle = SPEED * (stamp * 10 // SECOND)
        sent = pose_from_xy_yaw(RADIUS * np.cos(angle), RADIUS * np.sin(angle), angle)
        correction = pose_of(message.pose.pose) @ np.linalg.inv(sent)
        self.report(
            topic="odometry_rect",
            frame=message.header.frame_id,
            in_order=stamp > self.last,
            correction=correction.tolist(),
        )
        self.last = stamp

    def on_path(self, name):
        def heard(message):
            stamps = [nanoseconds(pose.header.stamp) for pose in message.poses]
            where = [[p.pose.position.x, p.pose.position.y] for p in message.poses]
            self.report(topic=name, frame=message.header.frame_id, stamps=stamps, where=where)

        return heard

    def on_cloud(self, name):
        def heard(message):
            points = [[p.x, p.y, p.z] for p in message.points]
            self.report(topic=name, frame=message.header.frame_id, points=points)

        return heard

    def on_markers(self, name):
        def heard(message):
            frames = [marker.header.frame_id for marker in message.markers]
            self.report(topic=name, frame=frames[0], count=len(frames))

        return heard


run(VinsFusion)
