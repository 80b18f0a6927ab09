"""The losses against equations written out, quaternions of any sign and length."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vpr.models.vlocnet import Prediction
from vpr.pose_regression.loss import (
    LabelError,
    LossWeights,
    Truth,
    between,
    depth_loss,
    euclidean_loss,
    odometry_loss,
    quaternion_distance,
    relative_loss,
    segmentation_loss,
    window_losses,
)

torch.set_num_threads(1)  # two would wait for each other on a busy machine


def quaternions(seed: int, count: int = 3) -> torch.Tensor:
    return torch.tensor(Rotation.random(count, random_state=seed).as_quat(), dtype=torch.float32)


def truth(seed: int) -> Truth:
    generator = torch.Generator().manual_seed(seed)
    return Truth(torch.randn(3, 3, generator=generator), quaternions(seed))


def answer(position: torch.Tensor, rotation: torch.Tensor) -> Prediction:
    return Prediction(position, rotation, None, None, None, None, None)


def constants(weights: LossWeights, *names: str) -> float:
    return sum(float(weights.get_parameter(name).detach()) for name in names)


def test_a_right_answer_costs_nothing_but_the_log_variances() -> None:
    weights, before, now = LossWeights(), truth(1), truth(2)
    right_before = answer(before.position, before.rotation)
    right = answer(now.position, -now.rotation)  # the same rotation
    assert euclidean_loss(right, now, weights).item() == pytest.approx(-3.0, abs=1e-5)
    consistency = relative_loss(right_before, right, before, now, weights)
    assert consistency.item() == pytest.approx(constants(weights, "x_rel", "q_rel"), abs=1e-4)


def test_equation_6_written_out() -> None:
    weights, label, guess = LossWeights(), truth(3), truth(4)
    x = np.linalg.norm(guess.position - label.position, axis=1).mean()
    signs = [np.linalg.norm(guess.rotation - s * label.rotation, axis=1) for s in (1, -1)]
    expected = x + np.minimum(*signs).mean() * math.exp(3.0) - 3.0
    loss = euclidean_loss(answer(guess.position, guess.rotation), label, weights)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_odometry_is_in_the_previous_camera() -> None:
    """Turned left by 90 degrees and one metre ahead on the map's y: ahead on the camera's x."""
    quarter = torch.tensor([[0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5)]])
    before = Truth(torch.tensor([[5.0, 5.0, 0.0]]), quarter)
    now = Truth(torch.tensor([[5.0, 6.0, 0.0]]), -quarter)
    still = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    loss = odometry_loss(torch.tensor([[1.0, 0.0, 0.0]]), still, before, now, LossWeights())
    assert float(loss) == pytest.approx(-3.0, abs=1e-4)


def test_a_common_error_of_both_steps_costs_no_consistency() -> None:
    weights, before, now = LossWeights(), truth(5), truth(6)
    shift = torch.tensor([10.0, 0.0, 0.0])
    shifted = [answer(t.position + shift, t.rotation) for t in (before, now)]
    consistency = relative_loss(shifted[0], shifted[1], before, now, weights)
    assert float(consistency) == pytest.approx(-3.0, abs=1e-3)
    jump = answer(now.position, now.rotation)
    assert float(relative_loss(shifted[0], jump, before, now, weights)) == pytest.approx(
        7, abs=0.01
    )


@given(st.integers(0, 1000), st.integers(1001, 2000))
def test_between_is_scipys(a: int, b: int) -> None:
    qa, qb = quaternions(a), quaternions(b)
    expected = (Rotation.from_quat(qa.numpy()).inv() * Rotation.from_quat(qb.numpy())).as_quat()
    distance = quaternion_distance(between(qa, qb), torch.tensor(expected, dtype=torch.float32))
    assert float(distance.max()) < 1e-5


def test_labels_are_normalised_and_no_rotation_is_refused() -> None:
    label = Truth(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 0.0, 7.0]]))
    assert torch.equal(label.rotation, torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
    with pytest.raises(LabelError, match="label 1 of the batch has a zero quaternion"):
        Truth(torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]))
    with pytest.raises(LabelError, match="not finite"):
        Truth(torch.tensor([[math.nan, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0, 1.0]]))


def test_log_variances_balance_the_terms() -> None:
    """Learnt alone, s tends to the logarithm of its loss: there d/ds (L exp(-s) + s) is zero."""
    weights = LossWeights()
    optimizer = torch.optim.Adam([weights.x], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        weights.weighted(torch.tensor(0.2), "x").backward()
        optimizer.step()
    assert float(weights.x.detach()) == pytest.approx(math.log(0.2), abs=0.02)


def test_equation_8_stays_bounded_for_negative_losses() -> None:
    weights = LossWeights()
    optimizer = torch.optim.Adam(weights.parameters(), lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        total = weights.multitask({"loc": torch.tensor(-5.0), "vo": torch.tensor(1.0)})
        total.backward()
        optimizer.step()
    assert float(total) >= -5.0 * math.exp(2.0) - 2.0


def test_unlabelled_pixels_and_unknown_depths_cost_nothing() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    unlabelled = torch.full((1, 2, 2), 255)
    assert float(segmentation_loss(logits, unlabelled).detach()) == 0.0
    labels = unlabelled.clone()
    labels[0, 0, 0] = 1
    expected = -torch.log_softmax(logits, dim=1)[0, 1, 0, 0]
    assert torch.allclose(segmentation_loss(logits, labels), expected)
    depth = torch.full((1, 1, 2, 2), 2.0)
    known = torch.tensor([[[[0.0, 4.0], [0.0, 0.0]]]])
    assert float(depth_loss(depth, known)) == pytest.approx(math.log(2.0))
    assert float(depth_loss(depth, torch.zeros(1, 1, 2, 2))) == 0.0


def test_a_window_has_the_losses_of_its_tasks() -> None:
    weights, truths = LossWeights(), [truth(1), truth(2)]
    first = answer(truths[0].position, truths[0].rotation)
    second = Prediction(
        truths[1].position, truths[1].rotation, None,
        torch.zeros(3, 3), truths[1].rotation, None, torch.ones(3, 1, 2, 2),
    )  # fmt: skip
    both = window_losses([first, second], truths, weights, ("pose", "odometry"))
    assert set(both) == {"loc", "vo"}
    pose = window_losses([first, second], truths, weights, ("pose",), geometric_consistency=False)
    assert float(pose["loc"]) == pytest.approx(-3.0, abs=1e-5)
    assert float(both["loc"]) == pytest.approx(-6.0, abs=1e-3)  # equation 7 in full
