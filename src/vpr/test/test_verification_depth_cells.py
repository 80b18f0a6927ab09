"""Views reduced to cells: right on planes, and whatever a cheap depth camera gives is taken."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vpr.records import CameraModel
from vpr.verification.depth_cells import HEIGHT, WIDTH, DepthCells, lens_of

CAMERA = CameraModel(320, 240, np.array([[160.0, 0, 160], [0, 192.0, 120], [0, 0, 1]]))
IMAGE = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)


def slanted(height=240, width=320):
    """Depth of a plane that is slanted: its inverse is linear in the pixels."""
    return 1.0 / np.linspace(0.2, 0.5, height * width).reshape(width, height).T.astype(np.float32)


@pytest.mark.parametrize("size", [(240, 320), (480, 640), (120, 160)])
def test_inverse_depth_is_right_on_a_plane_whatever_the_depth_images_size(size):
    cells = DepthCells.of(IMAGE, slanted(*size), CAMERA)
    assert cells.near.shape == cells.shown.shape == (HEIGHT, WIDTH)
    expected = cv2.resize(1.0 / slanted(), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(cells.near, expected, rtol=4e-3)
    assert cells.nbytes == 14_400


def test_units_of_an_integer_depth_image():
    cells = DepthCells.of(IMAGE, np.full((240, 320), 5000, np.uint16), CAMERA, 0.0002)
    np.testing.assert_allclose(cells.near, 1.0, rtol=1e-3)


def test_half_a_depth_image_gives_half_a_view():
    depth = slanted()
    depth[:120] = np.nan
    known = np.isfinite(DepthCells.of(IMAGE, depth, CAMERA).near)
    assert not known[:29].any()
    assert known[31:].all()


@pytest.mark.parametrize(
    "depth",
    [
        np.full((240, 320), np.nan, np.float32),
        np.zeros((240, 320), np.uint16),
        np.ones((240, 424), np.float32),  # of another field of view
        np.ones((0, 0), np.float32),
        np.ones((240, 320, 3), np.float32),
    ],
    ids=["nan", "zero", "cropped", "empty", "colour"],
)
def test_what_says_nothing_of_the_view_is_no_view(depth):
    assert DepthCells.of(IMAGE, depth, CAMERA) is None


def test_distortion_is_taken_out():
    """A bright spot lies where the pinhole camera has it."""
    distorted = CameraModel(320, 240, CAMERA.matrix, np.array([-0.3, 0.1, 0.0, 0.0, 0.0]))
    ray = np.array([[[0.6, 0.4, 1.0]]])
    pixel, _ = cv2.projectPoints(
        ray, np.zeros(3), np.zeros(3), distorted.matrix, distorted.distortion
    )
    image = np.zeros((240, 320), np.uint8)
    cv2.circle(image, np.rint(pixel.ravel()).astype(int).tolist(), 6, 255, -1)
    cells = DepthCells.of(image, np.full(image.shape, 2.0, np.float32), distorted)
    fx, fy, cx, cy = lens_of(distorted)
    rows, columns = np.nonzero(cells.shown > 128)
    assert columns.mean() == pytest.approx(fx * 0.6 + cx, abs=0.7)
    assert rows.mean() == pytest.approx(fy * 0.4 + cy, abs=0.7)
    assert np.nanmin(cells.near) == np.nanmax(cells.near) == pytest.approx(0.5)


@settings(max_examples=60, deadline=None)
@given(
    depth=st.one_of(
        hnp.arrays(np.float32, st.sampled_from([(24, 32), (240, 320), (7, 9)]),
                   elements=st.floats(width=32), fill=st.floats(width=32)),
        hnp.arrays(np.uint16, (24, 32)),
    ),
    warped=st.booleans(),
)  # fmt: skip
def test_no_depth_image_breaks_it(depth, warped):
    lens = CameraModel(320, 240, CAMERA.matrix, np.array([0.1 * warped, 0.0, 0.0, 0.0, 0.0]))
    cells = DepthCells.of(IMAGE, depth, lens, 0.001)
    if cells is not None:
        known = cells.near[np.isfinite(cells.near)]
        assert len(known)
        assert (known > 0.0).all()
        assert not np.isinf(cells.near).any()
