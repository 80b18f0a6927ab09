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


def disturbed(truth, seed):
    """What odometry would say: 0.01 rad and 5 % off, each axis."""
    rng = np.random.default_rng(seed)
    guess = motion(rng.normal(0.0, 0.01, 3), np.zeros(3)) @ truth
    guess[:3, 3] = truth[:3, 3] + rng.normal(0.0, 0.05 * np.linalg.norm(truth[:3, 3]), 3)
    return guess


def sharpened(guess, truth, seed):
    rays = matched_rays(truth, seed)
    return sharpened_motion(guess, *rays, np.sqrt(2) * RAY_NOISE, 0.01, 0.05)


def test_rotation_and_direction_get_ten_times_better():
    errors = []
    for seed in range(60):
        heading, length, turn = np.random.default_rng(seed).uniform((-0.4, 1, -0.1), (0.4, 3, 0.1))
        shift = length * np.array([np.sin(heading), 0.0, np.cos(heading)])
        truth = motion((0.0, turn, 0.0), shift)
        guess = disturbed(truth, seed)
        found = sharpened(guess, truth, seed)
        errors.append(
            [
                [rotation_angle(relative(p, truth)), angle_between(p[:3, 3], truth[:3, 3])]
                for p in (guess, found)
            ]
        )
    before, after = np.median(errors, axis=0)
    assert (after < 0.1 * before).all()
    worst_before, worst_after = np.max(errors, axis=0)
    assert (worst_after < worst_before).all()


@settings(max_examples=25, deadline=None)
@given(
    rotation=st.tuples(*[st.floats(-0.2, 0.2)] * 3),
    shift=st.tuples(*[st.floats(-2.0, 2.0)] * 3).filter(lambda t: np.linalg.norm(t) > 0.1),
    seed=st.integers(0, 1000),
)
def test_the_result_is_a_rigid_motion_as_long_as_the_guess(rotation, shift, seed):
    truth = motion(rotation, shift)
    guess = disturbed(truth, seed)
    found = sharpened(guess, truth, seed)
    assert np.isclose(np.linalg.norm(found[:3, 3]), np.linalg.norm(guess[:3, 3]))
    assert np.allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3))
    assert np.linalg.det(found[:3, :3]) > 0


def test_without_matches_or_motion_the_guess_stays():
    guess = motion((0.0, 0.1, 0.0), (0.0, 0.0, 1.0))
    few = matched_rays(guess, 0, count=11, outliers=0)
    assert np.array_equal(sharpened_motion(guess, *few, 0.001, 0.01, 0.05), guess)
    still = np.eye(4)
    many = matched_rays(motion((0, 0, 0), (0, 0, 1.0)), 0)
    assert np.array_equal(sharpened_motion(still, *many, 0.001, 0.01, 0.05), still)
