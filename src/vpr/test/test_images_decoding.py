"""Message payloads to arrays: every encoding, padded rows, and refusals by name."""

from array import array

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr.images.decoding import (
    ImageError,
    colour_of,
    decode_compressed,
    decode_depth,
    decode_image,
    grey_of,
)

COLOUR = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 0].copy()


@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("bgr8", COLOUR),
        ("rgb8", COLOUR[:, :, ::-1]),
        ("bgra8", np.dstack([COLOUR, GREY])),
        ("rgba8", np.dstack([COLOUR[:, :, ::-1], GREY])),
    ],
)
def test_colour_encodings_come_out_as_bgr(encoding, pixels):
    step = 8 * pixels.shape[2]
    data = array("B", np.ascontiguousarray(pixels).tobytes())
    np.testing.assert_array_equal(decode_image(encoding, 6, 8, step, data), COLOUR)


def test_mono8_and_mono16_come_out_as_grey_bytes():
    np.testing.assert_array_equal(decode_image("mono8", 6, 8, 8, GREY.tobytes()), GREY)
    wide = (GREY.astype(np.uint16) << 8).tobytes()
    np.testing.assert_array_equal(decode_image("mono16", 6, 8, 16, wide), GREY)
    swapped = (GREY.astype(np.uint16) << 8).astype(">u2").tobytes()
    np.testing.assert_array_equal(decode_image("mono16", 6, 8, 16, swapped, True), GREY)


def test_bayer_and_yuv_come_out_as_bgr_of_the_same_size():
    assert decode_image("bayer_rggb8", 6, 8, 8, GREY.tobytes()).shape == (6, 8, 3)
    assert decode_image("yuv422_yuy2", 6, 8, 16, bytes(6 * 16)).shape == (6, 8, 3)


@given(padding=st.integers(0, 9), last_row_padded=st.booleans())
def test_row_padding_is_cut_off(padding, last_row_padded):
    step = 8 * 3 + padding
    rows = np.full((6, step), 255, np.uint8)
    rows[:, : 8 * 3] = COLOUR.reshape(6, -1)
    data = rows.tobytes() if last_row_padded or not padding else rows.tobytes()[:-padding]
    np.testing.assert_array_equal(decode_image("bgr8", 6, 8, step, data), COLOUR)


@pytest.mark.parametrize(
    ("arguments", "reason", "said"),
    [
        (("32SC4", 6, 8, 128, bytes(768)), "unsupported_encoding", "32SC4"),
        (("16UC1", 6, 8, 16, bytes(96)), "unsupported_encoding", "16UC1"),
        (("bgr8", 0, 8, 24, b""), "empty_image", "8x0"),
        (("bgr8", 6, 8, 24, bytes(100)), "truncated_image", "144"),
        (("bgr8", 6, 8, 20, bytes(144)), "bad_step", "20"),
    ],
)
def test_unusable_images_are_refused_by_name(arguments, reason, said):
    with pytest.raises(ImageError, match=said) as caught:
        decode_image(*arguments)
    assert caught.value.reason == reason


def test_depth_comes_out_in_metres_with_nan_for_no_measurement():
    millimetres = np.array([[0, 1500], [2000, 65535]], np.uint16)
    depth = decode_depth("16UC1", 2, 2, 4, millimetres.tobytes())
    np.testing.assert_allclose(depth, [[np.nan, 1.5], [2.0, 65.535]], rtol=1e-6)
    metres = np.array([[np.nan, np.inf], [-1.0, 3.5]], np.float32)
    depth = decode_depth("32FC1", 2, 2, 8, metres.tobytes())
    np.testing.assert_allclose(depth, [[np.nan, np.nan], [np.nan, 3.5]])
    with pytest.raises(ImageError, match="not a depth image"):
        decode_depth("rgb8", 2, 2, 6, bytes(12))


def test_compressed_images_are_decoded_or_refused():
    smooth = cv2.GaussianBlur(cv2.resize(COLOUR, (64, 48)), (0, 0), 4)
    jpeg = cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    assert np.abs(decode_compressed(jpeg).astype(int) - smooth).mean() < 4
    png = cv2.imencode(".png", GREY)[1].tobytes()
    np.testing.assert_array_equal(decode_compressed(png), GREY)
    for data, reason in ((b"", "empty_image"), (b"no image at all", "undecodable_image")):
        with pytest.raises(ImageError) as caught:
            decode_compressed(data)
        assert caught.value.reason == reason


def test_grey_and_colour_versions():
    assert grey_of(COLOUR).shape == (6, 8)
    assert colour_of(GREY).shape == (6, 8, 3)
    assert grey_of(GREY) is GREY
    assert colour_of(COLOUR) is COLOUR
