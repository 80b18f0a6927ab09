"""Attention from semantics."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vpr.config import SegmentationConfig
from vpr.images.attention import AttentionError, make_attention
from vpr.models.attention_head import AttentionHead
from vpr.models.attention_network import AttentionEncoderDecoder
from vpr.models.weights import WeightsError
from vpr.records import Image
from vpr.semantics.attention import (
    LearnedAttention,
    SemanticBoundaryAttention,
    SemanticMaskAttention,
    static_mask,
)
from vpr.semantics.classes import class_indices
from vpr.semantics.segmenter import Segmentation
from vpr.semantics.training import save_weights
from vpr.simulation.labels import Label


class CarBeforeHouse:
    """A segmenter that sees a car on the left half and a house on the right."""

    def __call__(self, image: Image) -> Segmentation:
        activations = np.full((19, 12, 16), 0.2 / 17, np.float32)
        activations[Label.CAR, :, :8], activations[Label.BUILDING, :, :8] = 0.8, 0.2 / 17
        activations[Label.BUILDING, :, 8:], activations[Label.CAR, :, 8:] = 0.8, 0.2 / 17
        return Segmentation(torch.from_numpy(activations))


def config(**overrides: object) -> SegmentationConfig:
    return SegmentationConfig.from_file(attention_width=64, **overrides)


IMAGE = np.full((48, 64, 3), 90, np.uint8)


def test_the_mask_is_where_static_classes_are_and_never_below_the_floor() -> None:
    mask = SemanticMaskAttention(config(floor=0.1), CarBeforeHouse())(IMAGE)
    assert mask.shape == (48, 64)
    assert mask.dtype == np.uint8
    assert mask[:, :24].max() < 0.3 * 255
    assert mask[:, 40:].min() > 0.75 * 255
    assert mask.min() >= round(0.1 * 255)


def test_the_mask_is_the_scaled_mean_of_the_chosen_activations() -> None:
    found = CarBeforeHouse()(IMAGE)
    chosen = class_indices(["building", "pole", "car"])
    np.testing.assert_allclose(
        static_mask(found, chosen), found.activations[chosen].mean(axis=0) * 3, atol=1e-6
    )
    cars = SemanticMaskAttention(config(static_classes=["car"]), CarBeforeHouse())(IMAGE)
    assert cars[:, :24].min() > cars[:, 40:].max()


def test_boundaries_between_classes_attract_and_near_ones_more() -> None:
    source = SemanticBoundaryAttention(config(diffusion_sigma=2.0, floor=0.0), CarBeforeHouse())
    flat = source(IMAGE)
    assert flat[:, 31:34].min() > 200
    assert flat[:, :16].max() < 30
    depth = np.full((48, 64), 20.0, np.float32)
    depth[24:] = 2.0
    fused = source(IMAGE, depth)
    assert fused[40, 32] > 5 * fused[8, 32]
    with pytest.raises(AttentionError, match="not registered"):
        source(IMAGE, depth[:10])


def test_a_learnt_head_says_what_it_was_taught(tmp_path: Path) -> None:
    head = AttentionHead()
    head.of_class.weight.data[0, Label.CAR] = -6.0
    save_weights(head, tmp_path / "head.safetensors")
    source = LearnedAttention(
        config(attention_weights=str(tmp_path / "head.safetensors"), floor=0.0), CarBeforeHouse()
    )
    attention = source(IMAGE)
    assert attention[:, :24].max() < 60 < 120 < attention[:, 40:].min()


def test_the_encoder_decoder_needs_a_file_and_then_gives_a_map(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="vpr train attention-network"):
        make_attention(config(source="encoder_decoder", attention_weights="embedded"))
    save_weights(AttentionEncoderDecoder(), tmp_path / "network.safetensors")
    weights = str(tmp_path / "network.safetensors")
    source = make_attention(config(source="encoder_decoder", attention_weights=weights))
    assert source(IMAGE).shape == (48, 64)
    assert source(IMAGE[..., 0]).shape == (48, 64)
    with pytest.raises(AttentionError):
        source(IMAGE.astype(np.float32))


@pytest.mark.parametrize("source", ["semantic_mask", "semantic_boundaries"])
def test_every_semantic_source_is_had_by_name_and_refuses_what_is_no_image(source: str) -> None:
    attention = make_attention(config(source=source))
    assert attention(IMAGE[:3, :5]).shape == (38, 64)
    with pytest.raises(AttentionError, match="channels"):
        attention(np.zeros((8, 8, 2), np.uint8))
