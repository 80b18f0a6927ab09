"""Trajectory error and TUM files, against closed forms and evo's own reader."""

import numpy as np
import pytest
from evo.tools.file_interface import read_tum_trajectory_file
from scipy.spatial.transform import Rotation

from vpr.evaluation.trajectory import (
    StampedPoses,
    TrajectoryError,
    absolute_trajectory_error,
    alignment,
    sampled,
    write_tum,
)
from vpr.geometry import PoseTrack, pose_from_quaternion, pose_from_xy_yaw

STAMPS = tuple(1_700_000_000_123_456_789 + i * 10**9 for i in range(20))
MOVE = pose_from_quaternion([5.0, -3.0, 1.0], [0.1, 0.2, 0.3, 0.8])


def helix():
    poses = []
    for i in range(len(STAMPS)):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("z", 0.3 * i).as_matrix()
        pose[:3, 3] = 4 * np.cos(0.3 * i), 4 * np.sin(0.3 * i), 0.1 * i
        poses.append(pose)
    return StampedPoses(STAMPS, tuple(poses))


def test_a_rigid_motion_is_no_error_once_aligned():
    truth = helix()
    moved = truth.transformed(MOVE)
    assert absolute_trajectory_error(moved, truth) < 1e-9
    np.testing.assert_allclose(alignment(moved, truth) @ MOVE, np.eye(4), atol=1e-9)
    assert absolute_trajectory_error(moved, truth, align=False) > 1.0


def test_unaligned_error_is_the_rmse_of_positions():
    truth = helix()
    shift = np.eye(4)
    shift[:3, 3] = 0.0, 3.0, 4.0
    shifted = truth.transformed(shift)
    assert absolute_trajectory_error(shifted, truth, align=False) == pytest.approx(5.0)


def test_scale_is_not_aligned_away():
    truth = helix()
    doubled = tuple(pose.copy() for pose in truth.poses)
    for pose in doubled:
        pose[:3, 3] *= 2.0
    positions = truth.positions - truth.positions.mean(axis=0)
    expected = np.sqrt(np.mean(np.sum(positions**2, axis=1)))
    found = absolute_trajectory_error(StampedPoses(STAMPS, doubled), truth)
    assert found == pytest.approx(expected, rel=1e-6)


def test_what_cannot_be_compared_is_refused_in_words():
    truth = helix()
    later = StampedPoses(tuple(stamp + 1 for stamp in STAMPS), truth.poses)
    with pytest.raises(TrajectoryError, match="same stamps"):
        absolute_trajectory_error(later, truth)
    two = StampedPoses(STAMPS[:2], truth.poses[:2])
    with pytest.raises(TrajectoryError, match="2 common poses"):
        absolute_trajectory_error(two, two)
    still = StampedPoses(STAMPS, tuple(np.eye(4) for _ in STAMPS))
    with pytest.raises(TrajectoryError, match="cannot be aligned"):
        absolute_trajectory_error(still, still)


def test_tum_files_are_read_by_evo_as_written(tmp_path):
    truth = helix().transformed(MOVE)
    write_tum(tmp_path / "new" / "truth.tum", truth)
    read = read_tum_trajectory_file(str(tmp_path / "new" / "truth.tum"))
    np.testing.assert_allclose(np.array(read.poses_se3), np.array(truth.poses), atol=1e-8)
    np.testing.assert_allclose(read.timestamps, np.array(STAMPS) / 1e9, atol=1e-6)
    first = (tmp_path / "new" / "truth.tum").read_text().split()[0]
    assert first == "1700000000.123456789"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["truth.tum"]


def test_sampling_leaves_out_what_the_track_does_not_cover():
    track = PoseTrack(max_gap_ns=10)
    track.append(100, pose_from_xy_yaw(0, 0, 0))
    track.append(110, pose_from_xy_yaw(1, 0, 0))
    track.append(200, pose_from_xy_yaw(9, 0, 0))
    found = sampled(track, [90, 105, 150, 200])
    assert found.stamps_ns == (105, 200)
    np.testing.assert_allclose(found.positions[:, 0], [0.5, 9.0])
