"""ORB patches: count, place, completion along lines to the centre, images that give none."""

import numpy as np
import pytest
import torch

from vpr.relocalization.patch_features import CHANNELS, _sampled, patch_features
from vpr.relocalization.patches import PatchError, PatchExtractor, completion
from vpr.relocalization.views import redrawn


def textured(width=320, height=240, seed=0):
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(
        np.uint8
    )


@pytest.mark.parametrize("size", [16, 32, 64])
def test_patches_are_what_the_image_shows_at_their_centres(size):
    image = textured()
    patches = PatchExtractor(size)(image)
    assert patches.pixels.shape == (128, size, size, 3)
    for pixels, (x, y) in zip(patches.pixels, patches.centres.astype(int), strict=True):
        left, top = x - size // 2, y - size // 2
        assert np.array_equal(pixels, image[top : top + size, left : left + size])


def test_the_same_image_gives_the_same_patches():
    one, two = (PatchExtractor(16)(textured()) for _ in range(2))
    assert np.array_equal(one.centres, two.centres)


def test_low_texture_is_completed_to_the_full_count():
    image = np.full((240, 320, 3), 90, np.uint8)
    image[60:80, 60:80] = textured()[60:80, 60:80]
    patches = PatchExtractor(16)(image)
    assert len(patches.pixels) == 128
    assert patches.completed > 0


def test_completed_points_lie_between_a_keypoint_and_the_centre():
    keypoints = np.array([[10.0, 20.0], [300.0, 40.0]], np.float32)
    centre = np.array([160.0, 120.0], np.float32)
    points = completion(keypoints, centre, 200, np.random.default_rng(0))
    detour = [
        np.linalg.norm(points - keypoint, axis=1)
        + np.linalg.norm(points - centre, axis=1)
        - np.linalg.norm(keypoint - centre)
        for keypoint in keypoints
    ]
    assert np.min(detour, axis=0).max() < 1e-3
    assert {int(np.argmin(column)) for column in np.transpose(detour)} == {0, 1}


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.full((240, 320, 3), 7, np.uint8), "blank_image"),
        (textured(16, 8), "image_too_small"),
        (np.tile(np.linspace(0, 255, 320).astype(np.uint8), (240, 1)), "too_few_keypoints"),
    ],
)
def test_images_that_give_no_patches_are_refused_by_name(image, reason):
    with pytest.raises(PatchError) as refusal:
        PatchExtractor(16)(image)
    assert refusal.value.reason == reason


def test_other_patch_sizes_are_refused():
    with pytest.raises(ValueError, match="patch_size 20"):
        PatchExtractor(20)


def test_features_are_means_of_the_backbones_maps_over_the_patches():
    flat = np.full((240, 320, 3), 120, np.uint8)
    flat[:, 160:] = textured()[:, 160:]
    patches = PatchExtractor(32)(flat)
    found = patch_features([flat], [patches])
    assert found.shape == (1, 128, CHANNELS)
    assert torch.equal(found, patch_features([flat], [patches]))
    maps = [torch.rand(1, 3, 30, 40), torch.rand(1, 2, 8, 10)]
    points = torch.from_numpy(patches.centres)[:, None] + torch.tensor(
        [[-8.0, -8.0], [8.0, -8.0], [-8.0, 8.0], [8.0, 8.0]]
    )
    grid = (2.0 * points / torch.tensor([320.0, 240.0]) - 1.0)[None]
    expected = [
        torch.nn.functional.grid_sample(level, grid, padding_mode="border", align_corners=False)
        for level in maps
    ]
    sampled = _sampled(maps, patches)
    assert torch.allclose(sampled, torch.cat([e[0].mean(2) for e in expected]).T, atol=1e-5)


def test_redrawn_views_are_mirrored_every_second_time_and_lit_otherwise():
    views = np.stack([textured(seed=seed) for seed in range(2)])
    order = np.argsort(views[0, 0, :, 0], kind="stable")
    once, twice = redrawn(views, 1), redrawn(views, 2)
    assert not np.array_equal(twice, views)
    assert (np.diff(twice[0, 0, order, 0].astype(int)) >= 0).all()
    assert (np.diff(once[0, 0, ::-1][order, 0].astype(int)) >= 0).all()
