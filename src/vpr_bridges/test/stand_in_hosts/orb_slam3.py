"""ORB-SLAM3 behind a ROS wrapper: camera poses in its own world, which jumps when it closes a loop.

The camera drives 0.1 m a step along its optical axis. At step 60 the whole map is moved by 4 m.
"""

import numpy as np
from geometry_msgs.msg import PoseStamped
from host import SECOND, StandInHost, nanoseconds, run, set_stamp
from nav_msgs.msg import Odometry, Path

from vpr.geometry import inverse, pose_from_quaternion, relative, translation_norm
from vpr.messages import pose_of
from vpr_nodes.conversions import pose_msg

JUMP_STEP, STEPS = 60, 120
BASE_T_CAMERA = pose_from_quaternion((0.2, 0.0, 0.3), (-0.5, 0.5, -0.5, 0.5))


class OrbSlam3(StandInHost):
    def __init__(self):
        super().__init__("orb_slam3")
        self.step, self.last = 0, None
        self.keyframes = Path()
        self.pose = self.create_publisher(PoseStamped, "orb_slam3/camera_pose", 1)
        self.path = self.create_publisher(Path, "orb_slam3/keyframes", 1)
        self.create_subscription(Odometry, "odometry", self.on_odometry, 100)
        self.create_subscription(PoseStamped, "orb_slam3/corrected_pose", self.on_corrected, 100)
        self.create_subscription(Path, "orb_slam3/corrected_keyframes", self.on_keyframes, 10)
        self.create_timer(0.03, self.drive)

    def drive(self):
        if self.step == STEPS or self.pose.get_subscription_count() < 1:
            return
        self.step += 1
        world_T_camera = np.eye(4)
        world_T_camera[2, 3] = 0.1 * self.step
        if self.step >= JUMP_STEP:
            world_T_camera[0, 3] += 4.0
        message = PoseStamped(pose=pose_msg(world_T_camera))
        message.header.frame_id = "world"
        set_stamp(message.header, self.step * SECOND // 10)
        self.pose.publish(message)
        if self.step % 10 == 0:
            self.keyframes.poses.append(message)
            self.path.publish(self.keyframes)

    def on_odometry(self, message):
        stamp, pose = nanoseconds(message.header.stamp), pose_of(message.pose.pose)
        move = [] if self.last is None else relative(self.last, pose)[:3, 3].tolist()
        self.last = pose
        self.report(
            topic="odometry",
            frames=[message.header.frame_id, message.child_frame_id],
            step=stamp * 10 // SECOND,
            move=move,
            position=pose[:3, 3].tolist(),
        )

    def on_corrected(self, message):
        step = nanoseconds(message.header.stamp) * 10 // SECOND
        apart = translation_norm(inverse(self.last) @ pose_of(message.pose))
        self.report(topic="pose", frame=message.header.frame_id, step=step, apart=apart)

    def on_keyframes(self, message):
        steps = [nanoseconds(pose.header.stamp) * 10 // SECOND for pose in message.poses]
        where = [pose.pose.position.x for pose in message.poses]
        self.report(topic="keyframes", frame=message.header.frame_id, steps=steps, where=where)


run(OrbSlam3)
