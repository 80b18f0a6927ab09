import cv2
import numpy as np
import pytest
from safetensors.torch import save_file

from vpr.config import ConfigError, EmbeddingConfig
from vpr.models.efficientnet_lite0 import EfficientNetLite0, embedded_weights_file
from vpr.models.embedder import Embedder, EmbeddingError
from vpr.models.inflation import inflate_first_convolution
from vpr.models.weights import load_weights, read_state_dict
from vpr.models.whitening import fit_whitening

SMALL = {"image_width": 96, "image_height": 64, "threads": 1, "runtime": "pytorch"}


def embedder(**overrides):
    return Embedder(EmbeddingConfig.from_file(**(SMALL | overrides)))


@pytest.fixture(scope="module")
def small():
    return embedder()


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (3, 6, 9, 3), np.uint8)
    return [cv2.resize(image, (160, 120), interpolation=cv2.INTER_CUBIC) for image in coarse]


def test_descriptors_are_normalised_rows_of_the_announced_dimension(small, images):
    descriptors = small.embed(images)
    assert descriptors.shape == (3, small.dimension)
    assert descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1.0, rtol=1e-5)


def test_a_batch_gives_what_single_images_give(small, images):
    single = np.concatenate([small.embed([image]) for image in images])
    np.testing.assert_allclose(small.embed(images), single, atol=1e-4)


def test_grey_is_read_as_colour_of_three_equal_channels(small, images):
    grey = cv2.cvtColor(images[0], cv2.COLOR_BGR2GRAY)
    as_colour = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    np.testing.assert_allclose(small.embed([grey]), small.embed([as_colour]), atol=1e-5)


def test_a_view_resembles_itself_dimmed_more_than_another(small, images):
    dimmed = (0.6 * images[0]).astype(np.uint8)
    query, same, other = small.embed([images[0], dimmed, images[1]])
    assert query @ same > query @ other


def test_the_similarity_is_the_weighted_mean_of_the_parts(images):
    grids = {"_blocks.4": "3x1", "last": "2x2"}

    def similarity(layers, weights):
        first, second = embedder(
            layers=layers,
            layer_grids=[grids[layer] for layer in layers],
            layer_gem_p=[3.0] * len(layers),
            layer_weights=weights,
        ).embed(images[:2])
        return first @ second

    both = similarity(["_blocks.4", "last"], [1.0, 0.5])
    mean = (similarity(["_blocks.4"], [1.0]) + 0.5 * similarity(["last"], [1.0])) / 1.5
    assert both == pytest.approx(mean, abs=1e-4)


def test_the_model_name_covers_every_setting_that_changes_descriptors(small, images, tmp_path):
    descriptors = np.random.default_rng(0).normal(size=(9, small.dimension)).astype(np.float32)
    fit_whitening(descriptors, 4).save(tmp_path / "w.safetensors")
    changes = (
        {"weights": "none"},
        {"image_width": 128},
        {"layer_weights": [1.0, 0.5]},
        {"layer_gem_p": [3.0, 2.0]},
        {"attention": "pooling"},
        {"whitening": str(tmp_path / "w.safetensors")},
    )
    names = {embedder(**change).model for change in changes} | {small.model}
    assert len(names) == len(changes) + 1
    assert embedder(mixed_precision=False).model == small.model
    name, fingerprint = small.model.split("@")
    assert name == "efficientnet_lite0"
    assert len(fingerprint) == 12


def test_whitening_from_a_file_is_applied(small, images, tmp_path):
    training = np.random.default_rng(0).normal(size=(9, small.dimension)).astype(np.float32)
    whitening = fit_whitening(training, 4)
    whitening.save(tmp_path / "w.safetensors")
    whitened = embedder(whitening=str(tmp_path / "w.safetensors"))
    assert whitened.dimension == 4
    np.testing.assert_allclose(whitened.embed(images), whitening(small.embed(images)), atol=1e-4)


def test_attention_pooling_looks_where_the_attention_is(images):
    attentive = embedder(attention="pooling")
    even = np.full((30, 40), 255, np.uint8)
    left = even.copy()
    left[:, 20:] = 0
    changed = images[0].copy()
    changed[:, 120:] = 0  # the right border, which is not attended
    alike = attentive.embed([images[0], changed], [left, left])
    evenly = attentive.embed([images[0], changed], [even, even])
    assert alike[0] @ alike[1] > evenly[0] @ evenly[1]


def test_attention_is_ignored_unless_configured(small, images):
    attention = [np.zeros((30, 40), np.uint8)]
    np.testing.assert_array_equal(small.embed(images[:1], attention), small.embed(images[:1]))


def test_layers_behind_the_last_one_needed_are_not_computed(small):
    ran = []
    small._backbone.layer("_blocks.13").register_forward_hook(lambda *_: ran.append(13))
    small._backbone.layer("_blocks.11").register_forward_hook(lambda *_: ran.append(11))
    small.embed([np.zeros((64, 96), np.uint8)])
    assert ran == [11]


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.float32), np.zeros((0, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)]
)
def test_what_is_not_an_image_is_refused(small, bad):
    with pytest.raises(EmbeddingError):
        small.embed([bad])
    with pytest.raises(EmbeddingError, match="no image"):
        small.embed([])


def test_a_missing_attention_map_is_refused(images):
    with pytest.raises(EmbeddingError, match="1 attention maps for 2 images"):
        embedder(attention="pooling").embed(images[:2], [np.zeros((30, 40), np.uint8)])


def test_lists_of_different_lengths_are_a_wrong_configuration():
    with pytest.raises(ConfigError, match="layer_weights needs a value for each of the 2 layers"):
        EmbeddingConfig.from_file(layer_weights=[1.0])
    with pytest.raises(ConfigError, match="layer_grids"):
        EmbeddingConfig.from_file(layer_grids=["3x1", "3 by 1"])


@pytest.mark.parametrize("how", ["multiplied", "mask_channel"])
def test_without_a_map_the_other_integrations_are_no_integration(how, small, images):
    descriptors = embedder(attention=how).embed(images)
    np.testing.assert_allclose(descriptors, small.embed(images), atol=1e-4)


def test_a_map_multiplied_into_the_image_erases_where_it_is_zero(images):
    multiplied = embedder(attention="multiplied")
    image = images[0]
    half = np.full(image.shape[:2], 255, np.uint8)
    half[:, : half.shape[1] // 2] = 0
    black = image.copy()
    black[half == 0] = 0
    seen = multiplied.embed([image], [half])[0]
    assert seen @ multiplied.embed([black])[0] > 0.98
    assert seen @ multiplied.embed([image])[0] < 0.95


def test_weights_for_four_channels_are_taken_as_they_are(tmp_path, images):
    network = EfficientNetLite0()
    load_weights(network, read_state_dict(embedded_weights_file()), "embedded")
    inflate_first_convolution(network, 1)
    network._conv_stem.weight.data[:, 3] = 0.1
    save_file(network.state_dict(), tmp_path / "four.safetensors")
    four = embedder(attention="mask_channel", weights=str(tmp_path / "four.safetensors"))
    shape = images[0].shape[:2]
    dark, bright = (np.full(shape, grey, np.uint8) for grey in (0, 255))
    first, second = (four.embed(images[:1], [mask])[0] for mask in (dark, bright))
    assert first @ second < 0.999


@pytest.mark.parametrize(
    "bad", [np.zeros((30, 80), np.uint8), np.zeros((60, 80), np.float32), np.zeros(5, np.uint8)]
)
def test_a_map_of_another_image_is_refused(bad):
    pooling = embedder(attention="pooling")
    with pytest.raises(EmbeddingError, match="attention map"):
        pooling.embed([np.zeros((60, 80, 3), np.uint8)], [bad])
