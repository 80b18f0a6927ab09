import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.config import SegmentationConfig
from vpr.images.attention import AttentionError, make_attention


def attention(**overrides):
    return make_attention(SegmentationConfig.from_file(**overrides))


def square_on_grey(side=480, width=640):
    image = np.full((side, width, 3), 90, np.uint8)
    image[160:320, 240:400] = 200
    return image


def test_boundaries_attract_and_even_areas_keep_the_floor():
    result = attention(floor=0.1)(square_on_grey())
    assert result.shape == (120, 160)
    assert result[60, 60] == result.max() == 255  # left edge of the square
    assert result[10, 10] == round(0.1 * 255)
    assert result[60, 80] < 255  # inside the square


def test_diffusion_spreads_the_boundary():
    sharp, wide = attention(diffusion_sigma=0.0), attention(diffusion_sigma=4.0)
    assert (wide(square_on_grey()) > 128).sum() > (sharp(square_on_grey()) > 128).sum()


def test_an_even_image_is_attended_evenly():
    assert (attention()(np.full((48, 64), 120, np.uint8)) == 255).all()


def test_near_boundaries_count_more_than_far_ones():
    image = square_on_grey()
    depth = np.full(image.shape[:2], 2.0, np.float32)
    depth[:, 320:] = 20.0
    result = attention()(image, depth).astype(int)
    assert result[60, 60] > result[60, 100]
    unknown = attention()(image, np.zeros(image.shape[:2], np.float32))
    np.testing.assert_array_equal(unknown, attention()(image))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.booleans(), st.integers(0, 2**32 - 1))
def test_any_image_gives_a_map_of_its_aspect(rows, columns, colour, seed):
    shape = (rows, columns, 3) if colour else (rows, columns)
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    result = attention(attention_width=32, floor=0.2)(image)
    assert result.shape == (max(1, round(32 * rows / columns)), 32)
    assert result.dtype == np.uint8
    assert result.min() >= 51


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.float32), np.zeros((0, 4), np.uint8), np.zeros((4, 4, 2), np.uint8)],
)
def test_what_is_not_an_image_is_refused(image):
    with pytest.raises(AttentionError):
        attention()(image)


def test_depth_of_another_size_is_refused():
    with pytest.raises(AttentionError, match="not registered"):
        attention()(square_on_grey(), np.ones((10, 10), np.float32))
