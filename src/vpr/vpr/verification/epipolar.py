"""Sharpening a guessed motion between two views by their matches.

Odometry says how far the camera moved, but over a baseline of a metre or two its rotation and
direction are too coarse to triangulate with: a lateral error of 5 cm bends all points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vpr.geometry import rotation_from_vector
from vpr.records import Pose

ITERATIONS = 5
CAUCHY = 2.0  # standard deviations at which a match counts half
MIN_MATCHES = 12


def sharpened_motion(
    a_T_b: Pose,
    rays_a: NDArray[np.float64],
    rays_b: NDArray[np.float64],
    ray_noise: float,
    rotation_noise: float,
    direction_noise: float,
) -> Pose:
    """a_T_b with the rotation and the direction of motion that the matches say; same length.

    Gauss-Newton on Sampson distances (Hartley & Zisserman, 11.4.3) with Cauchy weights, held by
    the guess. With few matches the guess is returned.

    Args:
        rays_a, rays_b: (N, 3) matched rays with z = 1.
        ray_noise: of a Sampson distance, normalised image coordinates.
        rotation_noise, direction_noise: of the guess, radians each axis.
    """
    length = float(np.linalg.norm(a_T_b[:3, 3]))
    if len(rays_a) < MIN_MATCHES or length < 1e-6:
        return a_T_b
    rotation, towards = a_T_b[:3, :3], a_T_b[:3, 3] / length
    sideways = _perpendicular(towards)
    prior = 1.0 / np.square([rotation_noise] * 3 + [direction_noise] * 2)
    moved = np.zeros(5)
    for _ in range(ITERATIONS):
        translation, turned = _cross(towards), rays_b @ rotation.T
        error, slope = _sampson(translation @ rotation, rays_a, rays_b)
        # x' [t] R y changes by x' [t] [w] R y with a turn w, by x' [d] R y with a direction d
        by_turn = -np.cross(rays_a @ translation, turned)
        by_direction = np.cross(turned, rays_a) @ sideways.T
        jacobian = np.hstack([by_turn, by_direction]) / slope[:, None]
        weight = 1.0 / ray_noise**2 / (1.0 + (error / (CAUCHY * ray_noise)) ** 2)
        hessian = jacobian.T @ (weight[:, None] * jacobian) + np.diag(prior)
        step = -np.linalg.solve(hessian, jacobian.T @ (weight * error) + prior * moved)
        moved = moved + step
        rotation = rotation_from_vector(step[:3]) @ rotation
        towards = towards + step[3:] @ sideways
        towards /= np.linalg.norm(towards)
    sharpened = np.eye(4)
    sharpened[:3, :3], sharpened[:3, 3] = rotation, length * towards
    return sharpened


def _sampson(
    essential: NDArray[np.float64], rays_a: NDArray[np.float64], rays_b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) Sampson distances, and the slopes that the algebraic errors were divided by."""
    line_a, line_b = rays_b @ essential.T, rays_a @ essential
    slope = np.sqrt((line_a[:, :2] ** 2).sum(axis=1) + (line_b[:, :2] ** 2).sum(axis=1))
    slope = np.maximum(slope, 1e-12)
    return (rays_a * line_a).sum(axis=1) / slope, slope


def _cross(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) matrix that multiplies as the cross product from the left."""
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def _perpendicular(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) unit vectors across a unit direction."""
    helper = np.eye(3)[np.argmin(np.abs(direction))]
    first = np.cross(direction, helper)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(direction, first)])
