"""ESPNetv2, and its authors' Cityscapes checkpoints on a real street."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vpr.config import SegmentationConfig
from vpr.models.espnetv2 import EspNetV2, espnetv2_scale
from vpr.models.weights import WeightsError, load_weights, read_state_dict
from vpr.semantics.segmenter import NetworkSegmenter
from vpr.simulation.labels import Label

torch.set_num_threads(1)  # two would wait for each other on a busy machine

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
CHECKPOINTS = {s: DATA / "weights" / f"espnetv2_s_{s}_city_1024x512.pth" for s in (1.0, 2.0)}
DRIVE = DATA / "karlsruhe_drive" / "left"
needs_data = pytest.mark.skipif(
    not DRIVE.is_dir() or not CHECKPOINTS[2.0].is_file(),
    reason="the authors' checkpoints or the Karlsruhe drive are not here",
)


def test_logits_are_half_the_image() -> None:
    network = EspNetV2(20, 1.0).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 128)).shape == (1, 20, 32, 64)


@needs_data
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_authors_checkpoints_load_as_they_are(scale: float) -> None:
    state = read_state_dict(CHECKPOINTS[scale])
    assert espnetv2_scale(state) == scale
    load_weights(EspNetV2(20, scale), state, "checkpoint")


@needs_data
def test_a_checkpoint_of_another_width_is_refused_by_its_first_layer() -> None:
    state = read_state_dict(CHECKPOINTS[2.0])
    with pytest.raises(WeightsError, match=r"layer 'base_net\.level2_0\.eesp\.proj_1x1\.conv"):
        load_weights(EspNetV2(20, 1.0), state, "checkpoint")


@needs_data
def test_a_real_street_has_road_below_and_cars_and_houses() -> None:
    config = SegmentationConfig.from_file(
        segmenter="espnetv2", segmenter_weights=str(CHECKPOINTS[2.0]), network_width=672
    )
    segmenter = NetworkSegmenter(config)
    image = cv2.imread(str(sorted(DRIVE.iterdir())[330]))
    labels = segmenter(np.asarray(image, np.uint8)).labels
    rows, columns = labels.shape
    ahead = labels[int(0.7 * rows) : int(0.95 * rows), int(0.4 * columns) : int(0.6 * columns)]
    assert (ahead == Label.ROAD).mean() > 0.9
    above = labels[: rows // 3, int(0.2 * columns) : int(0.8 * columns)]
    assert (above == Label.BUILDING).mean() > 0.8
    assert (labels == Label.CAR).mean() > 0.02
