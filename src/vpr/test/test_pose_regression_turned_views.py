"""A camera turned where it stands sees what a renderer would show it."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from vpr.pose_regression.loss import Truth
from vpr.pose_regression.turned_views import random_turns, turned_images, turned_truth
from vpr.semantics.classes import UNLABELLED

CAMERA = torch.tensor([1.0, 1.5, 0.5, 0.5])  # of 48 x 32 pixels: a focal length of 48
HEIGHT, WIDTH = 32, 48


def quaternion(*degrees: float) -> torch.Tensor:
    turn = Rotation.from_rotvec(np.radians(degrees))
    return torch.tensor(turn.as_quat(), dtype=torch.float32)[None]


def sky(turn: torch.Tensor) -> torch.Tensor:
    """A smooth world at infinity as a camera of this attitude map_R_camera sees it."""
    v, u = np.mgrid[0.5:HEIGHT, 0.5:WIDTH]
    rays = np.stack([(u / WIDTH - 0.5) / 1.0, (v / HEIGHT - 0.5) / 1.5, np.ones_like(u)], axis=2)
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)
    x, y, z = np.moveaxis(rays @ Rotation.from_quat(turn[0].numpy()).as_matrix().T, 2, 0)
    colours = np.stack([np.sin(5 * x + y), np.cos(4 * y - x), np.sin(3 * x * y + z)])
    return torch.tensor(colours, dtype=torch.float32)[None]


def test_images_are_those_of_the_turned_camera() -> None:
    before, turn = quaternion(20.0, -10.0, 5.0), quaternion(4.0, 6.0, -9.0)
    truth = turned_truth(Truth(torch.zeros(1, 3), before), turn, CAMERA)
    seen = turned_images(sky(before), turn, CAMERA)
    inner = (..., slice(8, -8), slice(10, -10))
    assert (seen - sky(truth.rotation))[inner].abs().max() < 0.02
    assert (seen - sky(before))[inner].abs().max() > 0.1


def test_no_turn_changes_nothing() -> None:
    turn = quaternion(0.0, 0.0, 0.0)
    labels = torch.randint(0, 5, (1, HEIGHT, WIDTH))
    labels[0, 0, 0] = UNLABELLED
    before = Truth(torch.ones(1, 3), quaternion(1.0, 2.0, 3.0), labels, torch.rand(1, 1, 4, 6))
    after = turned_truth(before, turn, CAMERA)
    image = sky(before.rotation)
    assert torch.allclose(turned_images(image, turn, CAMERA), image, atol=1e-5)
    assert torch.equal(after.labels, labels)
    assert torch.allclose(after.depth, before.depth)
    assert torch.allclose(after.rotation, before.rotation)


def test_beyond_the_border_nothing_is_known() -> None:
    turn = quaternion(0.0, 20.0, 0.0)  # to the right
    known = Truth(
        torch.zeros(1, 3),
        quaternion(0.0, 0.0, 0.0),
        torch.full((1, HEIGHT, WIDTH), 3),
        torch.full((1, 1, 4, 6), 2.0),
    )
    after = turned_truth(known, turn, CAMERA)
    assert after.labels is not None
    assert after.depth is not None
    assert (after.labels[0, :, 0] == 3).all()
    assert (after.labels[0, :, -1] == UNLABELLED).all()
    assert (after.depth[0, 0, :, -1] == 0.0).all()
    # a wall 2 m ahead is further away along an axis turned off it
    middle = after.depth[0, 0, 1, 2]
    u = (2.5 / 6) - 0.5
    angle = np.radians(20.0)
    assert torch.isclose(middle, torch.tensor(2.0 / (np.cos(angle) - u * np.sin(angle))).float())


def test_turns_are_within_their_bounds_and_repeat() -> None:
    turns = [random_turns(np.random.default_rng(1), 100, 10.0) for _ in range(2)]
    assert torch.equal(*turns)
    vectors = np.degrees(Rotation.from_quat(turns[0].numpy()).as_rotvec())
    assert np.abs(vectors).max() <= 10.0 + 1e-4
    assert np.abs(vectors).max() > 8.0
