"""Masks on disk."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from vpr.config import SegmentationConfig
from vpr.semantics.attention import static_mask
from vpr.semantics.classes import class_indices
from vpr.semantics.mask_cache import MaskCache, MaskCacheError, cache_masks
from vpr.semantics.segmenter import NetworkSegmenter

CONFIG = SegmentationConfig.from_file(network_width=64)
SIZE = (80, 60)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"view{index}.png" for index in range(3)]
    for path in paths:
        picture = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), SIZE)
        cv2.imwrite(str(path), picture)
    return paths


def test_what_is_cached_is_what_the_segmenter_says(tmp_path: Path, files: list[Path]) -> None:
    cache_masks(tmp_path / "cache", files, CONFIG, activations=True)
    cache = MaskCache.open(tmp_path / "cache")
    image = np.asarray(cv2.imread(str(files[1])), np.uint8)
    found = NetworkSegmenter(CONFIG)(image).resized(*SIZE)
    mask = static_mask(found, class_indices(CONFIG.static_classes))
    assert cache.mask("view1", SIZE).shape == (60, 80)
    assert np.abs(cache.mask("view1", SIZE) - 255.0 * mask).mean() < 6.0
    difference = cache.activations("view1", SIZE) - 255.0 * found.activations
    assert np.abs(difference).mean() < 3.0
    grey = cv2.imread(str(tmp_path / "cache" / "mask" / "view1.png"), cv2.IMREAD_UNCHANGED)
    assert grey.dtype == np.uint8
    assert grey.ndim == 2


def test_only_what_is_missing_is_segmented(tmp_path: Path, files: list[Path]) -> None:
    cache_masks(tmp_path / "cache", files[:2], CONFIG)
    first = tmp_path / "cache" / "mask" / "view0.png"
    before = first.stat().st_mtime_ns
    cache = cache_masks(tmp_path / "cache", files, CONFIG)
    assert first.stat().st_mtime_ns == before
    assert set(cache.manifest.images) == {"view0", "view1", "view2"}


def test_a_cache_of_other_settings_is_not_mixed(tmp_path: Path, files: list[Path]) -> None:
    cache_masks(tmp_path / "cache", files[:1], CONFIG)
    other = SegmentationConfig.from_file(network_width=64, static_classes=["building"])
    with pytest.raises(MaskCacheError, match="was made with"):
        cache_masks(tmp_path / "cache", files, other)


def test_what_does_not_match_is_refused_by_name(tmp_path: Path, files: list[Path]) -> None:
    cache = cache_masks(tmp_path / "cache", files[:1], CONFIG)
    with pytest.raises(MaskCacheError, match="nothing of image 'view2'"):
        cache.mask("view2", SIZE)
    with pytest.raises(MaskCacheError, match="is 40x30, its mask was made of 80x60"):
        cache.mask("view0", (40, 30))
    with pytest.raises(MaskCacheError, match="masks only"):
        cache.activations("view0", SIZE)
    (tmp_path / "cache" / "mask" / "view0.png").write_bytes(b"no image")
    with pytest.raises(MaskCacheError, match="cannot decode"):
        cache.mask("view0", SIZE)


def test_damaged_manifests_are_refused(tmp_path: Path, files: list[Path]) -> None:
    with pytest.raises(MaskCacheError, match=r"manifest\.json"):
        MaskCache.open(tmp_path / "nowhere")
    cache_masks(tmp_path / "cache", files[:1], CONFIG)
    path = tmp_path / "cache" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(MaskCacheError, match="version 99"):
        MaskCache.open(tmp_path / "cache")
    path.write_text("{")
    with pytest.raises(MaskCacheError, match="cannot read"):
        MaskCache.open(tmp_path / "cache")
