"""Sharpening a guessed motion between two views by their matches.

Odometry says how far the camera moved, but over a baseline of a metre or two its rotation and
direction are too coarse to triangulate with: a lateral error of 5 cm bends all points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vpr.records import Pose

ITERATIONS = 6
DIFFERENCE_STEP = 1e-6
CAUCHY = 2.0  # standard deviations at which a match counts half
MIN_MATCHES = 12


def epipolar_error(
    a_T_b: Pose, rays_a: NDArray[np.float64], rays_b: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N,) Sampson distances of matches, in normalised image coordinates.

    Args:
        rays_a, rays_b: (N, 3) rays with z = 1 (Hartley & Zisserman, 11.4.3).
    """
    x, y, z = a_T_b[:3, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ a_T_b[:3, :3]
    line_a, line_b = rays_b @ essential.T, rays_a @ essential
    slope = np.hypot(np.linalg.norm(line_a[:, :2], axis=1), np.linalg.norm(line_b[:, :2], axis=1))
    return np.asarray((rays_a * line_a).sum(axis=1) / np.maximum(slope, 1e-12))


def sharpened_motion(
    a_T_b: Pose,
    rays_a: NDArray[np.float64],
    rays_b: NDArray[np.float64],
    ray_noise: float,
    rotation_noise: float,
    direction_noise: float,
) -> Pose:
    """a_T_b with the rotation and the direction of motion that the matches say; same length.

    Gauss-Newton on Sampson distances with Cauchy weights, held by the guess.

    Args:
        ray_noise: of a Sampson distance, normalised image coordinates.
        rotation_noise, direction_noise: of the guess, radians each axis.
    """
    length = float(np.linalg.norm(a_T_b[:3, 3]))
    if len(rays_a) < MIN_MATCHES or length < 1e-6:
        return a_T_b
    sideways = _perpendicular(a_T_b[:3, 3] / length)
    prior = 1.0 / np.square([rotation_noise] * 3 + [direction_noise] * 2)

    def moved(parameters: NDArray[np.float64]) -> Pose:
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_rotvec(parameters[:3]).as_matrix() @ a_T_b[:3, :3]
        towards = a_T_b[:3, 3] / length + parameters[3:] @ sideways
        pose[:3, 3] = length * towards / np.linalg.norm(towards)
        return pose

    parameters = np.zeros(5)
    for _ in range(ITERATIONS):
        error = epipolar_error(moved(parameters), rays_a, rays_b)
        slopes = [
            (epipolar_error(moved(parameters + DIFFERENCE_STEP * axis), rays_a, rays_b) - error)
            / DIFFERENCE_STEP
            for axis in np.eye(5)
        ]
        jacobian = np.column_stack(slopes)
        weight = 1.0 / ray_noise**2 / (1.0 + (error / (CAUCHY * ray_noise)) ** 2)
        hessian = jacobian.T @ (weight[:, None] * jacobian) + np.diag(prior)
        gradient = jacobian.T @ (weight * error) + prior * parameters
        parameters = parameters - np.linalg.solve(hessian, gradient)
    return moved(parameters)


def _perpendicular(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) unit vectors across a unit direction."""
    helper = np.eye(3)[np.argmin(np.abs(direction))]
    first = np.cross(direction, helper)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(direction, first)])
