"""What a closure says, by ``closure_model``: measured, weak, by similarity, by direction."""

from dataclasses import replace

import numpy as np
import pytest
from test_graph_pose_graph import closure, driven, poses_of

from vpr.config import PoseGraphConfig
from vpr.geometry import pose_from_xy_yaw
from vpr.graph.lie_group import lie_group
from vpr.graph.measurements import ClosureError, closure_edge

WIDE = np.diag([0.25] * 3 + [4e-4] * 3)
MEASURED = pose_from_xy_yaw(3.0, 4.0, 0.2)


def edge(model, given=None, expected=None, mode="se3", **overrides):
    config = PoseGraphConfig.from_file(closure_model=model, **overrides)
    given = closure(9, 0, MEASURED, WIDE) if given is None else given
    return closure_edge(config, lie_group(mode), given, expected)


def test_measured_is_the_pose_with_its_own_covariance_and_a_floor():
    made = edge("measured", closure_translation_sigma=0.1, closure_rotation_sigma=0.01)
    np.testing.assert_allclose(made.measured, MEASURED)
    np.testing.assert_allclose(made.covariance, WIDE + np.diag([0.01] * 3 + [1e-4] * 3))


def test_weak_is_zero_within_three_metres_and_a_third_of_a_radian():
    made = edge("weak", replace(closure(9, 0, MEASURED), relative_pose=None, covariance=None))
    np.testing.assert_array_equal(made.measured, np.eye(4))
    np.testing.assert_allclose(np.diag(made.covariance), [9.0] * 3 + [0.09] * 3)


@pytest.mark.parametrize("similarity", [1.0, 0.25])
def test_information_is_the_similarity_times_the_identity(similarity):
    given = replace(closure(9, 0, MEASURED), covariance=None, probability=similarity)
    made = edge("similarity", given)
    np.testing.assert_allclose(made.measured, MEASURED)
    np.testing.assert_allclose(np.linalg.inv(made.covariance), similarity * np.eye(6))


@pytest.mark.parametrize("similarity", [0.0, -0.1, 1.5, float("nan")])
def test_a_similarity_that_is_none_is_refused(similarity):
    given = replace(closure(9, 0, MEASURED), probability=similarity)
    with pytest.raises(ClosureError, match="similarity") as refused:
        edge("similarity", given)
    assert refused.value.key == "no_similarity"


def test_direction_takes_the_distance_from_odometry_and_is_unsure_along_it():
    unit = MEASURED.copy()
    unit[:3, 3] /= 5.0
    sure = np.diag([1e-4] * 3 + [4e-4] * 3)
    expected = pose_from_xy_yaw(0.0, 10.0, 0.0)
    made = edge("direction", closure(9, 0, unit, sure), expected)
    np.testing.assert_allclose(made.measured[:3, 3], [6.0, 8.0, 0.0])
    np.testing.assert_allclose(made.measured[:3, :3], MEASURED[:3, :3])
    direction = np.array([0.6, 0.8, 0.0])
    along = np.sqrt(direction @ made.covariance[:3, :3] @ direction)
    across = np.sqrt(made.covariance[2, 2])
    assert along == pytest.approx(3.0, rel=0.01)
    assert across == pytest.approx(np.hypot(10.0 * 0.01, 0.05))  # 0.01 rad at 10 m, and the floor


@pytest.mark.parametrize("expected", [None, np.eye(4)])
def test_without_a_distance_a_direction_is_worth_nothing(expected):
    made = edge("direction", expected=expected)
    np.testing.assert_array_equal(made.measured[:3, 3], 0.0)
    np.testing.assert_allclose(made.measured[:3, :3], MEASURED[:3, :3])
    np.testing.assert_allclose(np.diag(made.covariance)[:3], 9.0, rtol=0.01)


@pytest.mark.parametrize("mode", ["se3", "se2"])
def test_a_closure_of_unknown_scale_turns_a_drive_but_does_not_stretch_it(mode):
    """Odometry that bends to the left; the closure saw straight ahead, a thousand times too far."""
    bent, step = [np.eye(4)], pose_from_xy_yaw(1.0, 0.0, 0.004)
    for _ in range(40):
        bent.append(bent[-1] @ step)
    graph = driven(bent, mode=mode, closure_model="direction", odometry_rotation_per_metre=0.01)
    ahead = pose_from_xy_yaw(40_000.0, 0.0, 0.0)
    sure = np.diag([160.0**2] * 3 + [1e-4] * 3)  # 4 mrad of that distance
    assert graph.add_closure(closure(40, 0, ahead, sure)).state == 1
    graph.settle()
    end = poses_of(graph)[-1]
    assert abs(end[1, 3]) < 0.3 * abs(bent[-1][1, 3])
    assert np.linalg.norm(end[:3, 3]) == pytest.approx(40.0, abs=0.3)


def test_the_model_is_one_a_graph_is_configured_with():
    graph = driven([pose_from_xy_yaw(i, 0, 0) for i in range(5)], closure_model="similarity")
    bare = replace(closure(4, 0, pose_from_xy_yaw(4, 0, 0)), covariance=None)
    assert graph.add_closure(bare).rejected_by == "no_similarity"
    assert graph.add_closure(replace(bare, probability=0.7)).state == 1
    np.testing.assert_allclose(graph.edges()[-1].covariance, np.eye(6) / 0.7)
