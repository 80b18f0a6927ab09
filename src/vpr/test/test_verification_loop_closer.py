import numpy as np
import pytest
from made_up_scene import BASE_T_CAMERA, CAMERA, Scene, relative_truth
from saved_part import changed_part, saved_part

from vpr.config import LoopClosureConfig
from vpr.geometry import pose_from_xy_yaw, relative, rotation_angle, translation_norm
from vpr.maps.table import MapError
from vpr.records import (
    CameraModel,
    ClosureState,
    Keyframe,
    MatchSource,
    PlaceMatch,
    PlaceMatches,
)
from vpr.verification import keyframe_views
from vpr.verification.features import LocalFeatures
from vpr.verification.loop_closer import LoopCloser
from vpr.verification.state import FeatureStateError

SCENE = Scene.along_x(40.0)
COUNT = 40  # keyframes a lap, 0.5 m apart
STEP = 0.5


def true_pose(index):
    """Two laps along one way; the second 0.4 m to the left and turned a little."""
    lap, step = divmod(index, COUNT)
    return pose_from_xy_yaw(5.0 + STEP * step, 0.4 * lap, 0.03 * lap)


def odometry_pose(index):
    """Drifts 1 % and believes that the second lap starts where it does."""
    pose = true_pose(index).copy()
    pose[0, 3] *= 1.01
    return pose


def keyframe(index, odometry="drifting", session=0):
    pose = {"drifting": odometry_pose(index), "none": None, "nan": np.full((4, 4), np.nan)}
    return Keyframe(
        index, session, index * 100_000_000, np.zeros(0, np.float32), "", odometry=pose[odometry]
    )


def look(index, depth=False, scene=SCENE, camera=CAMERA):
    noise = 0.002 if depth else None
    return scene.view(true_pose(index), seed=index, depth_noise=noise, camera=camera)


def closer(**overrides):
    return LoopCloser(LoopClosureConfig.from_file(**overrides))


def remember(verifier, indices, **options):
    odometry = options.pop("odometry", "drifting")
    for index in indices:
        verifier.add_keyframe(keyframe(index, odometry), look(index, **options))


def matches(query, *references):
    candidates = tuple(
        PlaceMatch(r, 0, r * 100_000_000, 0.1, 0.9, 0.8, MatchSource.SEQUENCE) for r in references
    )
    return PlaceMatches(query, 0, query * 100_000_000, candidates, 40, "")


def drive(verifier, queries, offset=COUNT, **options):
    """Add and verify queries one by one against the keyframe ``offset`` before; last verdicts."""
    verdicts = {}
    for query in queries:
        remember(verifier, [query], **options)
        for closure in verifier.verify(matches(query, query - offset)):
            verdicts[closure.query_id, closure.reference_id] = closure
    for closure in verifier.flush():
        verdicts[closure.query_id, closure.reference_id] = closure
    return verdicts


@pytest.mark.parametrize("depth", [True, False])
def test_second_lap_is_closed_with_metric_poses(depth):
    verifier = closer()
    remember(verifier, range(COUNT), depth=depth)
    verdicts = drive(verifier, range(COUNT + 5, COUNT + 15), depth=depth)

    assert len(verdicts) == 10
    for closure in verdicts.values():
        assert closure.state == ClosureState.VERIFIED, closure.reason
        truth = relative_truth(true_pose(closure.reference_id), true_pose(closure.query_id))
        assert translation_norm(relative(truth, closure.relative_pose)) < 0.1
        assert rotation_angle(relative(truth, closure.relative_pose)) < np.radians(0.7)
        assert np.sqrt(np.trace(closure.covariance[:3, :3])) < 0.2
        assert closure.rejected_by == ""


def test_camera_alone_closes_weakly():
    verifier = closer()
    assumed = CameraModel(CAMERA.width, CAMERA.height, CAMERA.matrix, assumed=True)
    remember(verifier, range(COUNT), odometry="none", camera=assumed)
    verdicts = drive(verifier, range(COUNT, COUNT + 6), odometry="none", camera=assumed)

    for closure in verdicts.values():
        assert closure.state == ClosureState.VERIFIED, closure.reason
        assert np.array_equal(closure.relative_pose, np.eye(4))
        assert np.sqrt(closure.covariance[0, 0]) == pytest.approx(3.0)
        assert "distance unknown" in closure.reason


def test_candidates_of_one_query_all_get_a_verdict():
    verifier = closer()
    remember(verifier, [*range(COUNT), COUNT + 10, COUNT + 11])
    first = verifier.verify(matches(COUNT + 10, 9, 10, 30))
    assert [(c.reference_id, c.state.name) for c in first] == [
        (10, "REJECTED"),
        (30, "REJECTED"),
        (9, "CANDIDATE"),
    ]
    assert "keyframe 9 is the better candidate" in first[0].reason
    assert first[2].reason == "geometry agrees, waiting for a second closure that agrees"
    second = verifier.verify(matches(COUNT + 11, 11))
    assert [(c.query_id, c.state.name) for c in second] == [
        (COUNT + 10, "VERIFIED"),
        (COUNT + 11, "VERIFIED"),
    ]
    assert verifier.flush() == []


def test_look_alike_place_is_forbidden_by_odometry():
    verifier = closer()
    remember(verifier, range(COUNT))
    for index in range(200, 204):  # the very same views, but odometry has gone 300 m on
        pose = pose_from_xy_yaw(300.0 + STEP * index, 0.0, 0.0)
        again = Keyframe(index, 0, index, np.zeros(0, np.float32), "", odometry=pose)
        verifier.add_keyframe(again, look(index - 200 + 10))
        (closure,) = verifier.verify(matches(index, index - 200 + 10))
        assert closure.rejected_by == "contradicts_odometry"
        assert "odometry puts it" in closure.reason


def test_other_place_is_rejected_with_numbers():
    verifier = closer()
    remember(verifier, range(COUNT))
    remember(verifier, [COUNT + 10], scene=Scene.along_x(40.0, seed=5))
    (closure,) = verifier.verify(matches(COUNT + 10, 10))
    assert closure.state == ClosureState.REJECTED
    assert closure.rejected_by == "too_few_inliers"
    assert closure.reason.endswith(f"{verifier.config.min_inliers} needed")
    assert closure.inliers < verifier.config.min_inliers


def test_same_things_from_too_far_away_are_no_revisit():
    verifier = closer()
    remember(verifier, range(COUNT), depth=True)
    remember(verifier, [COUNT + 20], depth=True)
    (closure,) = verifier.verify(matches(COUNT + 20, 10))  # 5 m ahead of it
    assert closure.rejected_by == "too_far"
    assert "4.0 m and 25 degrees allowed" in closure.reason


def test_lost_and_blank_images_are_named():
    verifier = closer()
    remember(verifier, range(20))
    blank = verifier.extract(np.full((480, 640), 90, np.uint8), None, CAMERA)
    verifier.add_keyframe(keyframe(60), None)
    verifier.add_keyframe(keyframe(61), blank)
    verifier.add_keyframe(keyframe(62), None, problem="the image is 9x9")
    reasons = [verifier.verify(matches(q, 10))[0] for q in (60, 61, 62, 63)]
    assert [c.rejected_by for c in reasons] == [
        "no_features", "too_few_features", "no_features", "no_features",
    ]  # fmt: skip
    assert reasons[0].reason == "keyframe 60: its image was never received"
    assert "blank or blurred" in reasons[1].reason
    assert reasons[2].reason == "keyframe 62: the image is 9x9"
    assert reasons[3].reason == "keyframe 63 is not known here"


def test_odometry_that_is_not_finite_counts_as_missing():
    verifier = closer(agreeing_closures_without_odometry=1, min_inliers_unconfirmed=12)
    remember(verifier, range(COUNT), odometry="nan")
    verdicts = drive(verifier, [COUNT + 10], odometry="nan")
    (closure,) = verdicts.values()
    assert closure.state == ClosureState.VERIFIED
    assert np.isfinite(closure.covariance).all()


def test_calibrated_camera_alone_needs_more_matches():
    verifier = closer(min_inliers_unconfirmed=5000)
    remember(verifier, range(COUNT), odometry="none")
    (closure,) = drive(verifier, [COUNT + 10], odometry="none").values()
    assert closure.rejected_by == "too_few_inliers"
    assert "where neither odometry, GPS nor depth can confirm it" in closure.reason


def test_loaded_map_gives_the_same_verdicts(tmp_path):
    live, loaded = closer(), closer()
    remember(live, range(COUNT - 5))
    saved_part(tmp_path / "map", "features", live.save)
    remember(live, range(COUNT - 5, COUNT))
    live.add_keyframe(keyframe(COUNT), None)
    loaded.load(saved_part(tmp_path / "map", "features", live.save))
    assert len(loaded) == len(live) == COUNT + 1
    loaded.load(saved_part(tmp_path / "copy", "features", loaded.save))
    verdicts = [drive(one, range(COUNT + 5, COUNT + 12)) for one in (live, loaded)]
    for mine, theirs in zip(*(v.values() for v in verdicts), strict=True):
        assert mine.state == theirs.state == ClosureState.VERIFIED
        assert mine.reason == theirs.reason
        assert np.array_equal(mine.relative_pose, theirs.relative_pose)
        assert np.array_equal(mine.covariance, theirs.covariance)


def test_map_of_no_keyframes(tmp_path):
    loaded = closer()
    loaded.load(saved_part(tmp_path / "map", "features", closer().save))
    assert len(loaded) == 0


def test_views_on_disk_are_read_again_when_many_were_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(keyframe_views, "VIEWS_KEPT", 2)
    live, loaded = closer(), closer()
    remember(live, range(COUNT))
    loaded.load(saved_part(tmp_path / "map", "features", live.save))
    verdicts = [drive(one, range(COUNT + 5, COUNT + 9)) for one in (live, loaded)]
    assert [v.state for v in verdicts[0].values()] == [v.state for v in verdicts[1].values()]


def test_another_map_is_not_added_to(tmp_path):
    mine, few, others = closer(), closer(), closer()
    remember(mine, range(3))
    remember(few, range(1))
    remember(others, range(3, 8))
    saved_part(tmp_path / "map", "features", mine.save)
    with pytest.raises(FeatureStateError, match="the map has 3 keyframes, here are only 1"):
        saved_part(tmp_path / "map", "features", few.save)
    with pytest.raises(FeatureStateError, match="keyframe 2 of the map is another one"):
        saved_part(tmp_path / "map", "features", others.save)


def cut_short(table):
    table["pixels"] = table["pixels"][:, :1]


@pytest.mark.parametrize(
    ("table", "change", "error", "message"),
    [
        ("keypoints", lambda a: a.pop("descriptors"), MapError, "no column 'descriptors'"),
        ("keypoints", cut_short, MapError, "'pixels' .* holds"),
        ("views", lambda a: a["cameras"].fill(1), FeatureStateError, "camera is not among"),
        ("views", lambda a: a["counts"].fill(1), FeatureStateError, "counts of features"),
        ("views", lambda a: a["thumbnail_ends"].fill(7), FeatureStateError, "thumbnails do not"),
        ("views", lambda a: a["ids"].fill(1), FeatureStateError, "do not ascend"),
    ],
)
def test_saved_features_that_do_not_fit_are_refused(tmp_path, table, change, error, message):
    verifier = closer()
    remember(verifier, range(3))
    part = changed_part(tmp_path / "map", "features", verifier.save, table, change)
    with pytest.raises(error, match=message):
        closer().load(part)


def test_other_features_are_refused(tmp_path):
    part = saved_part(tmp_path / "map", "features", closer().save)
    part.metadata["feature"] = "SIFT"
    with pytest.raises(FeatureStateError, match="asks for ORB"):
        closer().load(part)


def test_memory_a_keyframe_is_as_stated():
    features = look(10)
    assert isinstance(features, LocalFeatures)
    assert features.nbytes == 52 * len(features)


def test_camera_frame_closures_where_no_extrinsics_are_known():
    """With an identity extrinsic the pose is between optical frames."""
    verifier = closer(camera_in_base=[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    remember(verifier, range(COUNT), depth=True, odometry="none")
    options = {"depth": True, "odometry": "none"}
    closure = list(drive(verifier, range(COUNT, COUNT + 5), **options).values())[-1]
    truth = relative_truth(true_pose(closure.reference_id), true_pose(closure.query_id))
    optical = np.linalg.inv(BASE_T_CAMERA) @ truth @ BASE_T_CAMERA
    assert closure.state == ClosureState.VERIFIED, closure.reason
    assert translation_norm(relative(optical, closure.relative_pose)) < 0.1
