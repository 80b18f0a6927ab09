from pathlib import Path

import cv2
import numpy as np
import pytest

from vpr.config import LoopClosureConfig
from vpr.records import CameraModel
from vpr.verification.features import ImageUnusable, OrbFeatures, fitted_camera, lens_mask
from vpr.verification.matching import match_descriptors

CORRIDOR = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "corridor"
CONFIG = LoopClosureConfig.from_file()


def textured(width=640, height=480, cell=8, seed=0):
    """A grey image with corners all over."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // cell, width // cell), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def camera_of(image):
    return CameraModel.from_horizontal_fov(image.shape[1], image.shape[0], 60.0)


def extract(image, depth=None, camera=None):
    return OrbFeatures(CONFIG)(image, depth, camera or camera_of(image))


def test_features_of_a_textured_image_are_many_and_spread():
    image = textured(cell=20)
    image[:, 320:] = image[:, 320:] // 4 + 96  # the right half has far less contrast
    features = extract(image)

    assert len(features) == CONFIG.feature_count
    cells = (features.pixels // 80).astype(int)
    assert len(np.unique(cells, axis=0)) >= 40  # of 48
    assert 0.2 < (features.pixels[:, 0] > 320).mean() < 0.7
    assert features.descriptors.shape == (len(features), 32)
    assert features.angles.min() >= 0
    assert features.angles.max() <= 360


def test_grey_and_colour_give_the_same_features():
    grey = textured()
    colour = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    assert np.array_equal(extract(grey).descriptors, extract(colour).descriptors)


@pytest.mark.parametrize("value", [0, 127, 255])
def test_blank_image_gives_no_features_and_no_crash(value):
    features = extract(np.full((480, 640), value, np.uint8))
    assert len(features) == 0
    assert features.rays.shape == (0, 2)
    assert features.descriptors.shape == (0, 32)


@pytest.mark.parametrize(("width", "height"), [(160, 120), (1280, 960)])
def test_rays_do_not_depend_on_the_image_size(width, height):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (15, 20), dtype=np.uint8)
    image = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_NEAREST)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    features, usual = extract(resized), extract(image)

    assert (features.pixels >= 0).all()
    assert (features.pixels < (width, height)).all()
    rows, columns = match_descriptors(features.descriptors, usual.descriptors, 0.9, 64)
    assert len(rows) > 50
    off = (features.rays[rows] - usual.rays[columns]) / usual.unit
    assert np.abs(np.median(off, axis=0)).max() < 1.0


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((0, 0), np.uint8), "not an 8-bit image"),
        (np.zeros((48, 64), np.float32), "not an 8-bit image"),
        (np.zeros((48, 64, 4), np.uint8), "4 channels"),
    ],
)
def test_what_is_no_image_is_refused(image, words):
    with pytest.raises(ImageUnusable, match=words):
        OrbFeatures(CONFIG)(image, None, CameraModel.from_horizontal_fov(64, 48, 60.0))


def test_intrinsics_follow_the_image_size():
    camera = CameraModel(640, 480, np.array([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]]))
    half = fitted_camera(camera, 320, 240)
    assert half.matrix[0, 0] == pytest.approx(250.0)
    assert half.matrix[:2, 2] == pytest.approx([159.5, 119.5])


def test_crop_of_unknown_intrinsics_is_refused():
    camera = CameraModel.from_horizontal_fov(640, 480, 60.0)
    with pytest.raises(ImageUnusable, match="640x360 but its CameraInfo describes 640x480"):
        fitted_camera(camera, 640, 360)


def test_distortion_is_removed():
    image = textured()
    straight = camera_of(image)
    bent = CameraModel(640, 480, straight.matrix, np.array([-0.3, 0.1, 0.0, 0.0, 0.0]))
    plain, undistorted = extract(image, camera=straight), extract(image, camera=bent)

    again, _ = cv2.projectPoints(
        np.column_stack([undistorted.rays, np.ones(len(undistorted))]),
        np.zeros(3), np.zeros(3), bent.matrix, bent.distortion,
    )  # fmt: skip
    assert np.abs(again.reshape(-1, 2) - plain.pixels).max() < 0.1
    assert not undistorted.camera.distortion.any()


def test_depths_in_millimetres_and_metres_are_the_same():
    image = textured()
    metres = np.linspace(1.0, 2.0, 640, dtype=np.float32)[None, :].repeat(480, axis=0)
    millimetres = np.rint(metres * 1000).astype(np.uint16)
    by_metres, by_millimetres = extract(image, metres), extract(image, millimetres)

    assert np.isfinite(by_metres.depths).all()
    assert by_metres.depths == pytest.approx(by_millimetres.depths, abs=1e-3)
    assert by_metres.depths == pytest.approx(1.0 + by_metres.pixels[:, 0] / 639, abs=2e-3)


def test_depth_holes_silhouettes_and_nonsense_are_unknown():
    image = textured()
    depth = np.full((480, 640), 2.0, np.float32)
    depth[:, 160:320] = 0.0
    depth[:, 320:480] = np.nan
    depth[:, 480:] = 5.0
    depth[0, 0] = np.inf
    features = extract(image, depth)
    columns = features.pixels[:, 0]
    inside = (columns > 162) & (columns < 478)

    assert np.isnan(features.depths[inside]).all()
    assert np.nanmax(features.depths[columns < 158]) == 2.0
    assert np.isnan(features.depths[np.abs(columns - 479.5) < 0.4]).all()


def test_smaller_depth_image_is_sampled_at_the_same_field_of_view():
    image = textured()
    depth = np.linspace(1.0, 2.0, 320, dtype=np.float32)[None, :].repeat(240, axis=0)
    features = extract(image, depth)
    assert features.depths == pytest.approx(1.0 + features.pixels[:, 0] / 639, abs=5e-3)


def test_rim_of_a_fisheye_is_masked():
    image = textured()
    across, down = np.meshgrid(np.arange(640), np.arange(480))
    distance = np.hypot(across - 300, down - 250)
    image[distance > 260] = 3
    image[(distance > 260) & (distance < 268)] = 60  # a reflection on the lens barrel
    mask = lens_mask(image)

    assert mask is not None
    assert not mask[distance > 258].any()
    assert mask[distance < 220].all()


def test_other_images_have_no_lens_mask():
    assert lens_mask(textured()) is None
    assert lens_mask(np.zeros((480, 640), np.uint8)) is None
    shadow = textured()
    shadow[:, :200] = 2
    assert lens_mask(shadow) is None


def test_image_circle_of_every_corridor_view_is_found():
    files = sorted(CORRIDOR.glob("*/*.jpg"))
    if not files:
        pytest.skip("the corridor data set is not here")
    shares = []
    for file in files[::5]:
        mask = lens_mask(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))
        assert mask is not None, file.name
        shares.append(mask.mean() / 255)
    assert np.std(shares) < 0.04  # one lens
