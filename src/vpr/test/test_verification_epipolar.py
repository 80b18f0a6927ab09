import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vpr.geometry import relative, rotation_angle
from vpr.verification.epipolar import sharpened_motion

RAY_NOISE = 0.001


def matched_rays(a_T_b, seed, count=200, outliers=20):
    rng = np.random.default_rng(seed)
    points = rng.uniform([-6.0, -3.0, 4.0], [6.0, 3.0, 25.0], (count, 3))
    in_b = (points - a_T_b[:3, 3]) @ a_T_b[:3, :3]
    rays_a, rays_b = points / points[:, 2:], in_b / in_b[:, 2:]
    for rays in (rays_a, rays_b):
        rays[:, :2] += rng.normal(0.0, RAY_NOISE, (count, 2))
    rays_b[:outliers, :2] += rng.normal(0.0, 0.05, (outliers, 2))
    return rays_a, rays_b


def motion(rotation, translation):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(rotation).as_matrix()
    pose[:3, 3] = translation
    return pose


def angle_between(a, b):
    return np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1.0, 1.0))


@settings(max_examples=25, deadline=None)
@given(
    heading=st.floats(-0.4, 0.4),
    length=st.floats(1.0, 3.0),
    turn=st.floats(-0.1, 0.1),
    seed=st.integers(0, 1000),
)
def test_rotation_and_direction_get_better_and_the_length_stays(heading, length, turn, seed):
    truth = motion((0.0, turn, 0.0), (length * np.sin(heading), 0.0, length * np.cos(heading)))
    rng = np.random.default_rng(seed)
    guess = motion(rng.normal(0.0, 0.01, 3), np.zeros(3)) @ truth
    guess[:3, 3] = truth[:3, 3] + rng.normal(0.0, 0.05 * length, 3)

    found = sharpened_motion(guess, *matched_rays(truth, seed), np.sqrt(2) * RAY_NOISE, 0.01, 0.05)

    assert np.isclose(np.linalg.norm(found[:3, 3]), np.linalg.norm(guess[:3, 3]))
    assert rotation_angle(relative(found, truth)) < 0.006
    assert angle_between(found[:3, 3], truth[:3, 3]) < 0.05


def test_without_matches_or_motion_the_guess_stays():
    guess = motion((0.0, 0.1, 0.0), (0.0, 0.0, 1.0))
    few = matched_rays(guess, 0, count=11, outliers=0)
    assert np.array_equal(sharpened_motion(guess, *few, 0.001, 0.01, 0.05), guess)
    still = np.eye(4)
    many = matched_rays(motion((0, 0, 0), (0, 0, 1.0)), 0)
    assert np.array_equal(sharpened_motion(still, *many, 0.001, 0.01, 0.05), still)
