import numpy as np

from vpr.models.feature_grid import grid_descriptors, standardised


def drawn(seed, count=4):
    pixels = np.random.default_rng(seed).integers(0, 255, (count, 8, 16, 3), np.uint8)
    return [np.kron(image, np.ones((4, 4, 1), np.uint8)) for image in pixels]


def test_same_images_under_another_exposure_are_found():
    bright = drawn(0)
    dim = [(image * 0.6 + 20).astype(np.uint8) for image in bright]
    similarities = grid_descriptors(dim) @ grid_descriptors(bright).T
    assert similarities.argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_grey_images_are_described_as_colourless_ones():
    grey = [image[..., 0] for image in drawn(1)]
    colour = [np.repeat(image[..., None], 3, axis=2) for image in grey]
    np.testing.assert_allclose(grid_descriptors(grey), grid_descriptors(colour), atol=1e-5)


def test_what_all_images_share_is_taken_off():
    features = np.random.default_rng(2).normal(size=(50, 12)).astype(np.float32)
    season = np.linspace(-5, 5, 12, dtype=np.float32)
    np.testing.assert_allclose(
        standardised(features), standardised(3 * features + season), atol=1e-3
    )


def test_images_that_are_all_alike_have_no_descriptor():
    assert not grid_descriptors([drawn(3)[0]] * 3).any()
