import sys

import numpy as np
import pytest
import torch

from vpr.config import ConfigError, EmbeddingConfig
from vpr.models.activations import LayerActivations, in_pytorch
from vpr.models.backbone import make_backbone
from vpr.models.compiled import RuntimeUnavailableError, compiled_for_cpu
from vpr.models.embedder import Embedder

HEIGHT, WIDTH = 64, 96
BLANK = torch.zeros((1, HEIGHT, WIDTH, 3), dtype=torch.uint8)
LAYERS = ("_blocks.4", "last", "_blocks.1")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)


def network(layers=LAYERS):
    return LayerActivations(make_backbone("efficientnet_lite0", "embedded"), layers)


def test_both_runtimes_give_the_same_activations_in_the_order_asked_for(images):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    reference = in_pytorch(network(), torch.device("cpu"), mixed=True)(images)
    compiled = compiled_for_cpu(network(), BLANK, threads=1)
    for count in (2, 1):  # any batch size, without a word in between
        for ours, theirs in zip(compiled(images[:count]), reference, strict=True):
            assert ours.shape[1:] == theirs.shape[1:]
            scale = theirs.abs().max()
            torch.testing.assert_close(ours, theirs[:count], atol=1e-4 * scale, rtol=1e-3)


def test_answers_are_not_overwritten_by_the_next_image(images):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    run = compiled_for_cpu(network(["_blocks.1"]), BLANK, threads=1)
    (first,) = run(images[:1])
    kept = first.clone()
    run(images[1:])
    torch.testing.assert_close(first, kept, atol=0, rtol=0)


def test_without_openvino_pytorch_runs_the_network_and_says_so(monkeypatch, caplog, images):
    monkeypatch.setitem(sys.modules, "openvino", None)
    small = {"image_width": WIDTH, "image_height": HEIGHT, "threads": 1}
    descriptors = Embedder(EmbeddingConfig.from_file(**small)).embed(list(images))
    assert np.isfinite(descriptors).all()
    assert "openvino is not installed" in caplog.text
    with pytest.raises(RuntimeUnavailableError, match="not installed"):
        Embedder(EmbeddingConfig.from_file(runtime="openvino", **small))


def test_descriptors_of_both_runtimes_meet_in_one_map(images):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    small = {"image_width": WIDTH, "image_height": HEIGHT, "threads": 1}
    ours, theirs = (
        Embedder(EmbeddingConfig.from_file(runtime=runtime, **small))
        for runtime in ("openvino", "pytorch")
    )
    assert ours.model == theirs.model
    np.testing.assert_allclose(ours.embed(list(images)), theirs.embed(list(images)), atol=1e-4)


def test_an_unknown_runtime_is_refused():
    with pytest.raises(ConfigError, match=r"runtime = 'tensorflow'.*'pytorch'"):
        EmbeddingConfig.from_file(runtime="tensorflow")
