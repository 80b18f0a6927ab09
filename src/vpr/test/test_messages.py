"""Intrinsics from messages: what no camera has is refused by name."""

from types import SimpleNamespace

import numpy as np
import pytest

from vpr.images.decoding import ImageError
from vpr.messages import camera_of


def camera_info(fx=200.0, cx=160.0, cy=120.0):
    matrix = [fx, 0.0, cx, 0.0, fx, cy, 0.0, 0.0, 1.0]
    return SimpleNamespace(width=320, height=240, k=matrix, d=[0.1, 0.0, 0.0, 0.0])


def test_a_cameras_intrinsics_are_taken_over():
    camera = camera_of(camera_info())
    assert (camera.width, camera.height, camera.assumed) == (320, 240, False)
    np.testing.assert_array_equal(camera.matrix, [[200, 0, 160], [0, 200, 120], [0, 0, 1]])
    np.testing.assert_array_equal(camera.distortion, [0.1, 0, 0, 0])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"fx": 0.0}, "uncalibrated_camera"),
        ({"fx": np.nan}, "uncalibrated_camera"),
        ({"cx": 900.0}, "impossible_intrinsics"),
        ({"cy": -3.0}, "impossible_intrinsics"),
    ],
)
def test_wrong_intrinsics_are_refused(wrong, reason):
    with pytest.raises(ImageError) as refused:
        camera_of(camera_info(**wrong))
    assert refused.value.reason == reason
