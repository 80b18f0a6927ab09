"""Segmenters behind one interface, and their bad input."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vpr.config import ConfigError, SegmentationConfig
from vpr.models.compiled import RuntimeUnavailableError
from vpr.models.light_segmenter import LightSegmenter
from vpr.models.weights import WeightsError
from vpr.semantics.classes import CLASS_NAMES, UnknownClassError, class_indices
from vpr.semantics.labelled_views import render_views
from vpr.semantics.segmenter import NetworkSegmenter, SegmentationError
from vpr.semantics.training import judge_segmentation, save_weights
from vpr.simulation.labels import Label

UNSEEN_TOWN = 9900


def segmenter(**overrides: object) -> NetworkSegmenter:
    return NetworkSegmenter(SegmentationConfig.from_file(**overrides))


@pytest.fixture(scope="module")
def light() -> NetworkSegmenter:
    return segmenter()


def test_the_embedded_network_knows_an_unseen_town(light: NetworkSegmenter) -> None:
    views = render_views([UNSEEN_TOWN], 4)
    found = judge_segmentation(lambda image: light(image).resized(320, 240).labels, views)
    of = found.intersection_over_union()
    assert min(of["road"], of["building"], of["sky"]) > 0.85
    assert of["car"] > 0.5
    assert found.mean_intersection_over_union() > 0.45


@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 1), (240, 320), (37, 411, 3), (480, 640, 3)])
def test_any_size_gives_likelihoods_of_its_aspect(light: NetworkSegmenter, shape: tuple) -> None:
    found = light(np.random.default_rng(0).integers(0, 255, shape, np.uint8))
    classes, rows, columns = found.activations.shape
    assert classes == 19
    assert found.labels.shape == (rows, columns)
    assert abs(rows / columns - shape[0] / shape[1]) < 0.2
    np.testing.assert_allclose(found.activations.sum(axis=0), 1.0, atol=1e-4)


def test_a_grey_image_is_the_same_as_its_colour_copy(light: NetworkSegmenter) -> None:
    grey = np.random.default_rng(1).integers(0, 255, (60, 80), np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_allclose(light(grey).activations, light(colour).activations, atol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.float32), np.zeros((0, 4), np.uint8)],
)
def test_what_is_not_an_image_is_refused(light: NetworkSegmenter, bad: np.ndarray) -> None:
    with pytest.raises(SegmentationError, match="image"):
        light(bad)


def test_both_runtimes_see_the_same_in_images_of_any_aspect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    monkeypatch.setattr("vpr.semantics.segmenter.COMPILED_SHAPES", 2)
    compiled = segmenter(runtime="openvino", network_width=64)
    reference = segmenter(runtime="pytorch", network_width=64)
    rng = np.random.default_rng(2)
    for columns in (64, 128, 64):  # and the aspect compiled for at first: more than are kept
        image = rng.integers(0, 255, (64, columns, 3), np.uint8)
        np.testing.assert_allclose(
            compiled(image).activations, reference(image).activations, atol=1e-4
        )


def test_without_openvino_pytorch_segments_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert segmenter(network_width=64)(np.zeros((48, 64, 3), np.uint8)).labels.size > 0
    assert "openvino is not installed" in caplog.text
    with pytest.raises(RuntimeUnavailableError, match="not installed"):
        segmenter(network_width=64, runtime="openvino")


def test_torchvisions_classes_are_mapped_to_ours() -> None:
    network = segmenter(
        segmenter="torchvision:lraspp_mobilenet_v3_large",
        segmenter_weights="none",
        network_width=64,
        runtime="pytorch",
    )
    found = network(np.zeros((48, 64, 3), np.uint8))
    mapped = {Label.BUILDING, Label.PERSON, Label.CAR, Label.BUS, Label.BICYCLE, Label.TRAIN}
    assert found.activations.shape[0] == 19
    assert all(found.activations[label].max() > 0.0 for label in mapped)
    assert found.activations[Label.ROAD].max() == 0.0
    np.testing.assert_allclose(found.activations.sum(axis=0), 1.0, atol=1e-4)


def test_deeplabv3plus_is_had_by_name() -> None:
    network = segmenter(
        segmenter="deeplabv3plus_resnet101",
        segmenter_weights="none",
        network_width=64,
        runtime="pytorch",
    )
    assert network(np.zeros((64, 64, 3), np.uint8)).activations.shape == (19, 64, 64)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"segmenter": "deeplab"}, "unknown segmenter 'deeplab'.*light"),
        ({"segmenter": "torchvision:resnet18"}, "torchvision has no 'resnet18'.*lraspp"),
    ],
)
def test_unknown_networks_are_refused_listing_those_known(overrides: dict, told: str) -> None:
    with pytest.raises(SegmentationError, match=told):
        segmenter(segmenter_weights="none", **overrides)


def test_weights_of_another_network_are_refused_by_their_first_layer(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_weights(LightSegmenter(7), path)
    with pytest.raises(WeightsError, match=r"other\.safetensors: layer 'classify\.weight' is \(7"):
        segmenter(segmenter_weights=str(path))
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(WeightsError, match=r"layer '_conv_stem\.weight' .* is missing"):
        segmenter(segmenter_weights=str(tmp_path / "linear.pth"))
    with pytest.raises(WeightsError, match="no weights for espnetv2 are embedded"):
        segmenter(segmenter="espnetv2")


def test_an_unknown_class_is_refused_listing_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown class 'tree'.*road, sidewalk.*bicycle"):
        SegmentationConfig.from_file(static_classes=["building", "tree"])
    with pytest.raises(UnknownClassError, match="no class is named"):
        class_indices([])
    assert class_indices(["pole", "road", "pole"]).tolist() == [0, 5]
    assert CLASS_NAMES[6] == "traffic light"
