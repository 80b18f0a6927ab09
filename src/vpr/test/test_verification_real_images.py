"""Verification on data that nobody here made; the figures are printed with ``pytest -s``."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from made_up_scene import BASE_T_CAMERA

from vpr.config import LoopClosureConfig
from vpr.geometry import inverse, relative, rotation_angle, translation_norm
from vpr.records import (
    CameraModel,
    ClosureState,
    Keyframe,
    MatchSource,
    PlaceMatch,
    PlaceMatches,
)
from vpr.verification.loop_closer import LoopCloser

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def image_files(folder, pattern="*"):
    files = sorted((DATA / folder).glob(pattern))
    if not files:
        pytest.skip(f"the data set {folder} is not here")
    return files


class Walk:
    """Images added one by one as keyframes, and candidates verified."""

    def __init__(self, camera=None, **overrides):
        self.closer = LoopCloser(LoopClosureConfig.from_file(**overrides))
        self.camera = camera
        self.verdicts = {}

    def add(self, keyframe_id, file, odometry=None, depth=None):
        image = cv2.imread(str(file))
        height, width = image.shape[:2]
        camera = self.camera or CameraModel.from_horizontal_fov(width, height, 60.0)
        none = np.zeros(0, np.float32)
        keyframe = Keyframe(keyframe_id, 0, keyframe_id, none, "", odometry=odometry)
        self.closer.add_keyframe(keyframe, self.closer.extract(image, depth, camera))

    def verify(self, query, references):
        candidates = tuple(
            PlaceMatch(r, 0, r, 0.1, 0.9, 0.9, MatchSource.SEQUENCE) for r in references
        )
        matches = PlaceMatches(query, 0, query, candidates, len(candidates), "")
        self._note(self.closer.verify(matches))

    def verified(self):
        """The verified closures, once all candidates have their verdict."""
        self._note(self.closer.flush())
        assert all(v.state != ClosureState.CANDIDATE for v in self.verdicts.values())
        return [v for v in self.verdicts.values() if v.state == ClosureState.VERIFIED]

    def _note(self, closures):
        for closure in closures:
            self.verdicts[closure.query_id, closure.reference_id] = closure


def test_nothing_is_closed_on_a_drive_without_a_loop():
    walk, apart = Walk(), 12  # every eighth image: 10 s
    for index, file in enumerate(image_files("karlsruhe_drive/left", "*.jpg")[::8]):
        walk.add(index, file)
        walk.verify(index, range(index - apart))
    assert walk.verified() == []
    assert len(walk.verdicts) > 500
    print(f"karlsruhe_drive: none of {len(walk.verdicts)} candidates verified")


def traverse(folders, first, last, **overrides):
    """Walk the reference, then the query; candidates are the right place and two others."""
    walk = Walk(**overrides)
    references, queries = (image_files(folder, "*.jpg")[first:last] for folder in folders)
    for index, file in enumerate(references):
        walk.add(index, file)
    rng = np.random.default_rng(0)
    for index, file in enumerate(queries):
        walk.add(1000 + index, file)
        wrong = [r for r in range(len(references)) if abs(r - index) > 8]
        # wrong ones first: the right one must not win by its place in the list
        walk.verify(1000 + index, [*rng.choice(wrong, 2, replace=False).tolist(), index])
    offsets = [abs(v.query_id - 1000 - v.reference_id) for v in walk.verified()]
    right = sum(offset <= 2 for offset in offsets)
    print(f"{folders[0]}: {right} of {len(queries)} queries closed, {len(offsets) - right} wrong")
    return offsets, len(queries)


def test_a_walk_is_recognised_from_the_other_side_of_the_path():
    folders = ("gardens_point/day_left", "gardens_point/day_right")
    offsets, queries = traverse(folders, 0, 60)
    assert max(offsets) <= 2
    assert len(offsets) >= 0.6 * queries


def test_thumbnails_of_a_fisheye_are_enough():
    offsets, queries = traverse(("corridor/ref", "corridor/query"), 55, 105)
    assert max(offsets) <= 2
    assert len(offsets) >= 0.25 * queries


@pytest.mark.parametrize("with_depth", [True, False])
def test_closures_of_a_room_have_the_true_relative_pose(with_depth):
    """With depth; and with one camera whose scale comes from odometry, here the true motion."""
    files = image_files("redkitchen", "*.color.jpg")
    matrix = np.loadtxt(DATA / "redkitchen" / "camera-intrinsics.txt")
    walk = Walk(
        CameraModel(640, 480, matrix),
        agreeing_closures=1,  # geometry alone answers for every pose
        agreeing_closures_without_odometry=1,
        triangulation_baseline=0.2,
        odometry_noise=0.005,
    )
    poses = {}
    for index, file in enumerate(files):
        if index > 90 and index % 8:
            continue
        stem = str(file).removesuffix(".color.jpg")
        poses[index] = np.loadtxt(f"{stem}.pose.txt") @ inverse(BASE_T_CAMERA)
        depth = None
        if with_depth:
            depth = cv2.imread(f"{stem}.depth.png", cv2.IMREAD_UNCHANGED)
            depth = np.where(depth == 65535, 0, depth).astype(np.uint16)
        walk.add(index, file, None if with_depth else poses[index], depth)
        if index > 90:
            nearest = sorted(
                range(90), key=lambda r: translation_norm(relative(poses[r], poses[index]))
            )
            for reference in nearest[:6]:
                walk.verify(index, [reference])
    errors = []
    for closure in walk.verified():
        truth = relative(poses[closure.reference_id], poses[closure.query_id])
        apart = np.linalg.norm(truth[:3, 3] - closure.relative_pose[:3, 3])
        turned = rotation_angle(relative(truth, closure.relative_pose))
        errors.append((apart, np.degrees(turned)))
    worst = np.max(errors, axis=0)
    print(f"redkitchen: {len(errors)} closures, worst {worst[0]:.2f} m {worst[1]:.1f} degrees")
    assert len(errors) >= 10
    assert worst[0] < 0.3
    assert worst[1] < 30.0
