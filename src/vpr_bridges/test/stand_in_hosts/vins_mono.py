"""VINS-Mono's camera and estimator: tracks points of a painted wall, relocalizes by match points.

The estimator is fed as estimator_node.cpp and estimator.cpp feed it: setReloFrame wants a stamp
that equals one of the window's, optimization walks its features and the points by ascending id,
and the pose comes from channel 0. The camera drives along the wall and back.
"""

import cv2
import numpy as np
from geometry_msgs.msg import Point32
from host import SECOND, StandInHost, nanoseconds, run, set_stamp
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, ChannelFloat32, CompressedImage, PointCloud

from vpr.geometry import inverse, pose_from_quaternion
from vpr_nodes.conversions import pose_msg

WINDOW, FRAMES, PERIOD = 10, 44, 0.25  # frames, frames, s: time to answer on a busy machine
WIDTH, HEIGHT, FOCAL = 640, 480, 400.0
MATRIX = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
DISTANCE, SCALE = 4.0, 80.0  # m to the wall, texture px a metre
BODY_T_CAMERA = pose_from_quaternion((0.1, 0.0, 0.05), (-0.5, 0.5, -0.5, 0.5))


def painted_wall():
    """A texture of blots of many sizes."""
    rng = np.random.default_rng(4)
    wall = np.zeros((800, 1200), np.float32)
    for size in (5, 10, 20, 40):
        coarse = rng.uniform(0, 255, (800 // size, 1200 // size)).astype(np.float32)
        wall += cv2.resize(coarse, (1200, 800), interpolation=cv2.INTER_NEAREST) / 4
    return cv2.GaussianBlur(wall, (3, 3), 0).astype(np.uint8)


def body_pose(frame):
    """world_T_body: along the wall by 2 m and back, facing it."""
    there = min(frame, FRAMES - frame) / (FRAMES / 2)
    pose = np.eye(4)
    pose[1, 3] = -1.0 + 2.0 * there
    return pose


class VinsMono(StandInHost):
    def __init__(self):
        super().__init__("vins_estimator")
        self.wall = painted_wall()
        corners = cv2.goodFeaturesToTrack(self.wall, 400, 0.02, 15).reshape(-1, 2)
        self.points = np.column_stack(
            [
                np.full(len(corners), DISTANCE),
                (600 - corners[:, 0]) / SCALE,
                (400 - corners[:, 1]) / SCALE,
            ]
        )
        self.frame, self.window = 0, {}
        self.image = self.create_publisher(CompressedImage, "camera/image_raw/compressed", 10)
        self.info = self.create_publisher(CameraInfo, "camera/camera_info", 10)
        names = ("keyframe_pose", "extrinsic")
        self.poses = {
            n: self.create_publisher(Odometry, f"vins_estimator/{n}", 1000) for n in names
        }
        self.cloud = self.create_publisher(PointCloud, "vins_estimator/keyframe_point", 1000)
        self.create_subscription(PointCloud, "pose_graph/match_points", self.on_match_points, 2000)
        self.create_timer(PERIOD, self.drive)

    def drive(self):
        fed = (self.image, self.info, self.cloud, *self.poses.values())
        if self.frame == FRAMES or any(topic.get_subscription_count() < 1 for topic in fed):
            return
        self.frame += 1
        stamp = self.frame * SECOND // 10 + 7
        info = CameraInfo(width=WIDTH, height=HEIGHT, k=MATRIX.ravel().tolist(), d=[0.0] * 5)
        set_stamp(info.header, stamp)
        self.info.publish(info)
        self.image.publish(self.picture(stamp))
        self.window[stamp] = {}
        self.window = dict(list(self.window.items())[-WINDOW:])
        if self.frame > 1:  # the newest but one is told of, as WINDOW_SIZE - 2 is
            self.publish_keyframe(self.frame - 1)
        self.report(frame=self.frame, stamp=stamp)

    def picture(self, stamp):
        world_T_camera = body_pose(self.frame) @ BODY_T_CAMERA
        corners = np.array([[0, 0], [1200, 0], [1200, 800], [0, 800]], np.float32)
        wall = np.column_stack(
            [np.full(4, DISTANCE), (600 - corners[:, 0]) / SCALE, (400 - corners[:, 1]) / SCALE]
        )
        pixels = project(wall, world_T_camera)[1].astype(np.float32)
        grey = cv2.warpPerspective(
            self.wall, cv2.getPerspectiveTransform(corners, pixels), (WIDTH, HEIGHT)
        )
        image = CompressedImage(format="jpeg")
        set_stamp(image.header, stamp)
        image.data = cv2.imencode(".jpg", grey)[1].tobytes()
        return image

    def publish_keyframe(self, frame):
        stamp = frame * SECOND // 10 + 7
        pose = body_pose(frame)
        message = Odometry()
        set_stamp(message.header, stamp)
        message.header.frame_id = "world"
        message.pose.pose = pose_msg(BODY_T_CAMERA)
        self.poses["extrinsic"].publish(message)
        message.pose.pose = pose_msg(pose)
        self.poses["keyframe_pose"].publish(message)
        rays, pixels = project(self.points, pose @ BODY_T_CAMERA)
        seen = np.flatnonzero(((pixels > 40) & (pixels < (WIDTH - 40, HEIGHT - 40))).all(axis=1))
        seen = seen[::3][:100]
        cloud = PointCloud(header=message.header)
        cloud.points = [Point32(x=x, y=y, z=z) for x, y, z in self.points[seen].tolist()]
        rows = np.column_stack([rays[seen], pixels[seen], seen]).tolist()
        cloud.channels = [ChannelFloat32(values=row) for row in rows]
        self.cloud.publish(cloud)
        if stamp in self.window:
            self.window[stamp] = {int(identity): None for identity in seen}

    def on_match_points(self, message):
        stamp = nanoseconds(message.header.stamp)
        values = list(message.channels[0].values)
        ids = [int(point.z) for point in message.points]
        w, x, y, z = values[3:7]
        old = pose_from_quaternion(values[:3], (x, y, z, w))
        rays = np.array([(point.x, point.y) for point in message.points])
        expected = project(self.points[ids], old @ BODY_T_CAMERA)[0]
        found = self.walk(sorted(self.window.get(stamp, {})), ids)
        self.report(
            in_window=stamp in self.window,
            ascending=ids == sorted(set(ids)),
            values=values,
            points=len(ids),
            factors=found,
            pixels_off=float(np.median(np.linalg.norm(rays - expected, axis=1)) * FOCAL),
        )

    @staticmethod
    def walk(features, ids):
        """How many factors optimization() would add: both lists are walked once, upwards."""
        index = factors = 0
        for feature in features:
            while index < len(ids) and ids[index] < feature:
                index += 1
            if index < len(ids) and ids[index] == feature:
                factors += 1
                index += 1
        return factors


def project(points, world_T_camera):
    """Rays (N, 2) and pixels (N, 2) of points (N, 3)."""
    camera = points @ inverse(world_T_camera)[:3, :3].T + inverse(world_T_camera)[:3, 3]
    rays = camera[:, :2] / camera[:, 2:]
    return rays, rays * FOCAL + (WIDTH / 2, HEIGHT / 2)


run(VinsMono)
