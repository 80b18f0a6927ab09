"""Attention on trial: controls, metrics, pictures."""

import numpy as np
import pytest

from vpr.evaluation.attention import AttentionTrial, constant, multiplied, shuffled
from vpr.evaluation.attention_pictures import attention_figure
from vpr.evaluation.recall import mean_average_precision_at, recall_at
from vpr.images.overlay import attention_overlay, class_overlay, masked_image
from vpr.semantics.classes import CLASS_COLOURS
from vpr.simulation.sessions import REACH, SAME_PLACE, drive_twice, same_place

IMAGE = np.full((24, 32, 3), 100, np.uint8)


def masks(count: int) -> list[np.ndarray]:
    return [np.full((12, 16), 10 * index, np.uint8) for index in range(count)]


@pytest.mark.parametrize("count", [2, 3, 17])
def test_shuffled_masks_are_all_there_and_none_with_its_own_image(count: int) -> None:
    values = [int(mask[0, 0]) for mask in shuffled(masks(count))]
    assert sorted(values) == [10 * index for index in range(count)]
    assert all(value != 10 * index for index, value in enumerate(values))


def test_the_constant_mask_is_the_mean() -> None:
    assert {int(mask[0, 0]) for mask in constant(masks(5))} == {20}


def test_multiplying_keeps_where_the_mask_is_full() -> None:
    mask = np.zeros((24, 32), np.uint8)
    mask[:, 16:] = 255
    faded = multiplied([IMAGE], [mask])[0]
    assert (faded[:, 16:] == 100).all()
    assert (faded[:, :16] == 0).all()


def test_average_precision_at_k_by_hand() -> None:
    ranked = [[3, 7, 1, 9], [5, 6, 8, 2]]
    correct = [frozenset({3, 1, 4}), frozenset({2})]
    assert mean_average_precision_at(1, ranked, correct) == recall_at(1, ranked, correct) == 0.5
    expected = ((1 / 1 + 2 / 3) / 3 + 0.0) / 2
    assert mean_average_precision_at(3, ranked, correct) == pytest.approx(expected)
    assert mean_average_precision_at(4, ranked, correct) == pytest.approx(
        ((1 + 2 / 3) / 3 + 1 / 4) / 2
    )
    assert mean_average_precision_at(4, ranked, [frozenset(), frozenset({2})]) == 0.25


def test_two_sessions_pass_the_same_places_under_another_light() -> None:
    town = drive_twice(9901, stride=30)
    near = same_place(town.query_poses, town.reference_poses)
    apart = town.query_poses[:, None, :2, 3] - town.reference_poses[None, :, :2, 3]
    assert (np.linalg.norm(apart[near], axis=-1) <= SAME_PLACE).all()
    assert [set(row) for row in town.correct] == [set(np.flatnonzero(row)) for row in near]
    assert len(town.references) == len(town.reference_views) > 3
    for overlap in (town.overlap(), town.overlap(by_depth=True)):  # sectors, what is in view
        assert overlap.shape == near.shape
        assert overlap[near].min() > 0.2
        assert overlap[np.linalg.norm(apart, axis=-1) > 2 * REACH].max() == 0.0
    brightness = [np.mean(session) for session in (town.references, town.queries)]
    assert brightness[0] > brightness[1]  # a sunny morning, a dull evening


def test_a_trial_judges_every_source_with_its_controls() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(4)]
    trial = AttentionTrial(["laplacian_of_gaussian"])
    found = trial.judge(images, images, [frozenset({index}) for index in range(4)])
    name = "laplacian_of_gaussian"
    assert set(found) == {"none"} | {
        f"{way}{control}"
        for way in (f"{name} in the pooling", f"image times {name}")
        for control in ("", ", shuffled", ", constant")
    }
    assert found["none"].recall_at_1 == found[f"{name} in the pooling"].recall_at_1 == 1.0


def test_overlays_and_the_figure_have_the_images_size() -> None:
    mask, labels = np.full((12, 16), 255, np.uint8), np.full((12, 16), 13, np.uint8)
    assert attention_overlay(IMAGE[..., 0], mask).shape == IMAGE.shape
    blue_car = class_overlay(IMAGE, labels, CLASS_COLOURS)[0, 0]
    assert blue_car[0] > blue_car[2]
    np.testing.assert_array_equal(masked_image(IMAGE, mask), IMAGE)
    picture = attention_figure([IMAGE, IMAGE], [mask, mask], [labels, labels])
    assert picture.shape == (2 * (24 + 4), 4 * (32 + 4), 3)
