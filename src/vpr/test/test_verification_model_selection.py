"""A plane is a homography, a room is not; and a homography keeps false matches out."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vpr.verification.model_selection import (
    homography_inliers,
    prefers_homography,
    sampson_squared,
    transfer_squared,
)

FOCAL, SIGMA, THRESHOLD = 500.0, 0.7, 1.5


def pair(depths, seed=0, turn=0.05, step=(0.4, 0.0, 0.1), count=150):
    """Pixels of points in two views, with noise, and the true F (query^T F reference = 0)."""
    rng = np.random.default_rng(seed)
    rays = rng.uniform(-0.5, 0.5, (count, 2))
    points = np.column_stack([rays, np.ones(count)]) * depths(rng, rays)[:, None]
    rotation = Rotation.from_euler("y", turn).as_matrix()
    moved = points @ rotation.T + step
    x, y, z = step
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    inverse_k = np.diag([1 / FOCAL, 1 / FOCAL, 1.0])
    fundamental = inverse_k @ cross @ rotation @ inverse_k
    query, reference = (FOCAL * p[:, :2] / p[:, 2:] for p in (moved, points))
    noise = rng.normal(0, SIGMA, (2, count, 2))
    return query + noise[0], reference + noise[1], fundamental


def plane(_rng, rays):
    return 4.0 / (1.0 + 0.4 * rays[:, 0])


def room(rng, rays):
    return rng.uniform(2.0, 12.0, len(rays))


@pytest.mark.parametrize(("depths", "homography"), [(plane, True), (room, False)])
@pytest.mark.parametrize("seed", range(5))
def test_the_simpler_model_wins_where_it_explains_the_matches(depths, homography, seed):
    query, reference, fundamental = pair(depths, seed)
    found = homography_inliers(query, reference, THRESHOLD)
    assert found is not None
    assert prefers_homography(fundamental, found[0], query, reference, SIGMA) == homography


def test_a_turn_on_the_spot_is_a_homography():
    query, reference, _ = pair(room, turn=0.1, step=(0.0, 0.0, 1e-9))
    _, _, other = pair(room, seed=3)
    found = homography_inliers(query, reference, THRESHOLD)
    assert found is not None
    assert found[1].mean() > 0.7
    assert prefers_homography(other, found[0], query, reference, SIGMA)


def test_residuals_are_those_of_the_noise():
    query, reference, fundamental = pair(plane, count=4000)
    assert np.mean(sampson_squared(fundamental, query, reference)) == pytest.approx(
        SIGMA**2, rel=0.1
    )
    exact, _ = homography_inliers(query, reference, THRESHOLD)
    assert np.mean(transfer_squared(exact, query, reference)) == pytest.approx(
        2 * SIGMA**2,
        rel=0.1,  # two coordinates
    )


def test_a_match_along_its_epipolar_line_is_no_inlier_of_a_plane():
    query, reference, fundamental = pair(plane)
    lines = np.column_stack([reference, np.ones(len(reference))]) @ fundamental.T
    along = np.column_stack([-lines[:, 1], lines[:, 0]])
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    false = np.arange(len(query)) < 30
    query[false] += 25.0 * along[false]
    assert np.sqrt(sampson_squared(fundamental, query, reference)[false]).max() < 5 * SIGMA
    found = homography_inliers(query, reference, THRESHOLD)
    assert not found[1][false].any()


def test_no_homography_is_found_in_one_point():
    points = np.ones((12, 2))
    assert homography_inliers(points, points, THRESHOLD) is None
