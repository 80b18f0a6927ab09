"""Training the light segmenter, and judging segmenters."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vpr.models.weights import read_state_dict
from vpr.semantics.accuracy import Confusion
from vpr.semantics.classes import CLASS_NAMES, UNLABELLED
from vpr.semantics.labelled_views import LabelledViews
from vpr.semantics.training import (
    SegmentationTrainingConfig,
    class_weights,
    save_weights,
    train_segmentation,
)

torch.set_num_threads(1)  # two would wait for each other on a busy machine

CONFIG = SegmentationTrainingConfig(steps=40, batch=4, crop_width=64, crop_height=64)


def two_halves() -> LabelledViews:
    """Bright sky over dark road, the horizon anywhere."""
    rng = np.random.default_rng(0)
    images, labels = np.zeros((8, 60, 80, 3), np.uint8), np.zeros((8, 60, 80), np.uint8)
    for image, label in zip(images, labels, strict=True):
        horizon = int(rng.integers(20, 40))
        image[:horizon], image[horizon:] = (230, 210, 200), (60, 60, 60)
        label[:horizon] = CLASS_NAMES.index("sky")
    return LabelledViews(images, labels)


def test_it_learns_two_classes_the_same_way_each_time(tmp_path: Path) -> None:
    network = train_segmentation(CONFIG, two_halves())
    image = torch.from_numpy(two_halves().images[:1]).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    with torch.inference_mode():
        labels = network(image).argmax(dim=1)[0]
    assert (labels[:3] == CLASS_NAMES.index("sky")).float().mean() > 0.9
    assert (labels[-3:] == CLASS_NAMES.index("road")).float().mean() > 0.9
    short = CONFIG.model_copy(update={"steps": 2})
    first, second = (train_segmentation(short, two_halves()).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    save_weights(network, tmp_path / "half.safetensors")
    assert read_state_dict(tmp_path / "half.safetensors")["classify.weight"].dtype == torch.float16


def test_rare_classes_weigh_more_and_absent_ones_nothing() -> None:
    labels = np.zeros((1, 100, 100), np.uint8)
    labels[0, :1] = 5
    weights = class_weights(labels)
    assert weights[5] > 5 * weights[0] > 0.0
    assert weights[1] == 0.0


def test_intersection_over_union_of_a_known_confusion() -> None:
    truth = np.array([[0, 0, 1, 1, UNLABELLED]], np.uint8)
    confusion = Confusion.empty()
    confusion.add(truth, np.array([[0, 1, 1, 2, 3]], np.uint8))
    found = confusion.intersection_over_union()
    assert found == {"road": pytest.approx(1 / 2), "sidewalk": pytest.approx(1 / 3)}
    assert confusion.mean_intersection_over_union() == pytest.approx(5 / 12)
