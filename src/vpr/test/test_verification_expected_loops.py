"""A camera along a wall and back: candidates laid over, loops that only the map expects, maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_wall import wall
from saved_part import changed_part, saved_part

from vpr.config import LoopClosureConfig
from vpr.geometry import (
    inverse,
    pose_from_quaternion,
    pose_from_xy_yaw,
    relative,
    rotation_angle,
    translation_norm,
)
from vpr.maps.table import MapError
from vpr.records import ClosureState, Keyframe, MatchSource, PlaceMatch, PlaceMatches
from vpr.verification.depth_cells import DepthCells
from vpr.verification.expected_views import MapPoses, Whereabouts, in_reach
from vpr.verification.loop_closer import LoopCloser
from vpr.verification.state import FeatureStateError, StoredFeatures
from vpr.verification.stored_cells import TABLE

VIEWS = 12  # a lap, 0.5 m apart
HALL = wall(laps=2, views=VIEWS, step=0.5, size=(320, 240))
BASE_T_CAMERA = pose_from_quaternion((0.2, 0.1, 0.4), (-0.5, 0.5, -0.5, 0.5))
TRUTH = HALL.poses @ inverse(BASE_T_CAMERA)
CONFIG = LoopClosureConfig.from_file(
    camera_in_base=[0.2, 0.1, 0.4, -0.5, 0.5, -0.5, 0.5], expected_min_driven=2.0
)


def stamp(row):
    return row * 10**9


def keyframe(row, session=0):
    return Keyframe(row, session, stamp(row), np.zeros(0, np.float32), "", odometry=TRUTH[row])


@pytest.fixture(scope="module")
def features():
    extract = LoopCloser(CONFIG).extract
    return [
        extract(image, depth, HALL.camera)
        for image, depth in zip(HALL.images, HALL.depths, strict=True)
    ]


def closer(features, rows=range(2 * VIEWS), config=CONFIG):
    result = LoopCloser(config)
    for row in rows:
        result.add_keyframe(keyframe(row), features[row])
    return result


def matches(query, reference):
    match = PlaceMatch(reference, 0, stamp(reference), 0.1, 0.9, 0.8, MatchSource.SEQUENCE)
    return PlaceMatches(query, 0, stamp(query), (match,), 40, "")


def map_poses(count, poses=TRUTH, tied=(0,), sessions=None):
    own = np.zeros(count, np.int64) if sessions is None else sessions
    stamps = np.array([stamp(row) for row in range(count)])
    return MapPoses(np.arange(count), own, stamps, poses[:count], np.array(tied))


def error(closure):
    truth = relative(TRUTH[closure.reference_id], TRUTH[closure.query_id])
    return relative(truth, closure.relative_pose)


# Candidates


def test_a_candidate_gets_the_pose_that_its_views_fit_with_between_the_bases(features):
    plain = [replace(one, cells=None) for one in features]
    verdicts = {}
    for name, known in {"overlaid": features, "corners": plain}.items():
        verifier = closer(known)
        for query in (VIEWS + 2, VIEWS + 3):
            closures = verifier.verify(matches(query, query - VIEWS + 1))
        verdicts[name] = closures[-1]
    for closure in verdicts.values():
        assert closure.state is ClosureState.VERIFIED, closure.reason
    overlaid = verdicts["overlaid"]
    assert "laid over each other" in overlaid.reason
    assert "laid over" not in verdicts["corners"].reason
    assert translation_norm(error(overlaid)) < 0.02
    assert rotation_angle(error(overlaid)) < np.radians(0.5)
    off = error(overlaid)[:3, 3]
    assert (np.abs(off) < 3.0 * np.sqrt(np.diag(overlaid.covariance)[:3])).all()
    assert np.sqrt(overlaid.covariance[0, 0]) < 0.1


def test_corners_that_agree_where_all_else_differs_are_a_look_alike(features):
    other = features[VIEWS - 1].cells
    spoilt = list(features)
    spoilt[4] = replace(features[4], cells=other)
    (closure,) = closer(spoilt).verify(matches(VIEWS + 3, 4))
    assert (closure.state, closure.rejected_by) == (ClosureState.REJECTED, "views_disagree")
    assert "correlates by" in closure.reason


def test_what_shares_too_little_to_judge_is_left_to_its_corners(features):
    dark = np.full((60, 80), np.nan, np.float16)
    dark[:4] = features[4].cells.near[:4]
    spoilt = list(features)
    spoilt[4] = replace(features[4], cells=DepthCells(dark, features[4].cells.shown))
    verifier = closer(spoilt)
    (closure,) = verifier.verify(matches(VIEWS + 3, 4))
    assert closure.state is ClosureState.CANDIDATE


# Loops that the map expects


def test_the_map_closes_loops_that_nobody_proposed(features):
    verifier = closer(features)
    assert verifier.expected_loops(VIEWS + 3) == []  # where the graph has them is not known
    verifier.map_is(map_poses(VIEWS + 2))  # the newest two are known by odometry alone
    closures = verifier.expected_loops(VIEWS + 3)
    assert len(closures) == 3
    assert len({closure.reference_id for closure in closures}) == 3
    for closure in closures:
        assert closure.state is ClosureState.VERIFIED, closure.reason
        assert "the map expects" in closure.reason
        assert closure.reference_id < VIEWS
        assert translation_norm(error(closure)) < 0.03
        assert closure.probability == CONFIG.expected_probability
    assert 3 in {closure.reference_id for closure in closures}


def test_a_map_that_is_off_is_mended_or_contradicted_never_confirmed(features):
    for off, state in ((0.04, ClosureState.VERIFIED), (2.0, ClosureState.REJECTED)):
        poses = TRUTH.copy()
        poses[VIEWS:] = pose_from_xy_yaw(0.0, off, 0.0) @ poses[VIEWS:]  # along the wall
        verifier = closer(features)
        verifier.map_is(map_poses(VIEWS + 1, poses))
        closures = verifier.expected_loops(VIEWS + 3)
        assert closures
        for closure in closures:
            assert closure.state is state, closure.reason
            if closure.relative_pose is not None:
                assert translation_norm(error(closure)) < 0.03


@pytest.mark.parametrize(
    "known",
    [
        None,
        map_poses(0),
        map_poses(VIEWS, sessions=np.ones(VIEWS, np.int64)),
        MapPoses(np.arange(VIEWS), np.zeros(VIEWS, np.int64), np.ones(VIEWS, np.int64),
                 TRUTH[:VIEWS], np.array([0])),
        map_poses(VIEWS, tied=()),
    ],
    ids=["no graph", "empty graph", "another session", "another map", "tied by nothing"],
)  # fmt: skip
def test_a_graph_that_does_not_know_where_it_is_expects_nothing(features, known):
    config = CONFIG.model_copy(update={"expected_max_drift": 0.05})
    verifier = closer(features, config=config)
    verifier.map_is(known)
    assert verifier.expected_loops(VIEWS + 3) == []


def test_keyframes_without_depth_or_odometry_or_turned_off_expect_nothing(features):
    blind = [replace(one, cells=None) for one in features]
    off = CONFIG.model_copy(update={"expected_loops": 0})
    lost = LoopCloser(CONFIG)
    for row in range(2 * VIEWS):
        lost.add_keyframe(replace(keyframe(row), odometry=None), features[row])
    for verifier in (closer(blind), closer(features, config=off), lost, LoopCloser(CONFIG)):
        verifier.map_is(map_poses(VIEWS + 1))
        assert verifier.expected_loops(VIEWS + 3) == []


def test_without_overlay_no_depth_is_kept():
    config = CONFIG.model_copy(update={"overlay": False})
    assert LoopCloser(config).extract(HALL.images[0], HALL.depths[0], HALL.camera).cells is None


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.data())
def test_drift_is_least_where_closures_tie(count, data):
    sessions = np.sort(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    tied = data.draw(st.sets(st.integers(0, count - 1)))
    poses = np.stack([pose_from_xy_yaw(1.0 * row, 0, 0) for row in range(count)])
    known = map_poses(count, poses, tied=sorted(tied), sessions=sessions)
    for row in range(count):
        own = [abs(row - end) for end in tied if sessions[end] == sessions[row]]
        assert known.untied[row] == pytest.approx(min(own, default=np.inf))
    here = Whereabouts(poses[-1], count - 1, 0.5)
    rows, drift = in_reach(known, here, CONFIG.model_copy(update={"expected_reach": 15.0}))
    assert (drift <= CONFIG.expected_max_drift).all()
    for row in rows:
        assert count - 1 - row < 15
        assert sessions[row] != sessions[-1] or count - 1 - row + 0.5 >= CONFIG.expected_min_driven


# Maps


def same(one, other):
    if one is None or other is None:
        return one is other
    return np.array_equal(one.near, other.near, equal_nan=True) and np.array_equal(
        one.shown, other.shown
    )


def test_a_map_keeps_the_views_of_the_keyframes_that_have_depth(features, tmp_path):
    mixed = [replace(f, cells=None) if row % 3 else f for row, f in enumerate(features)]
    live = closer(mixed, range(VIEWS))
    saved_part(tmp_path / "map", "features", live.save)
    for row in range(VIEWS, 2 * VIEWS - 1):
        live.add_keyframe(keyframe(row), mixed[row])
    live.add_keyframe(keyframe(2 * VIEWS - 1), None)
    part = saved_part(tmp_path / "map", "features", live.save)
    loaded = LoopCloser(CONFIG)
    loaded.load(part)
    stored = StoredFeatures(saved_part(tmp_path / "copy", "features", loaded.save))
    assert part.table(TABLE).rows == 8
    for row in range(2 * VIEWS - 1):
        assert same(stored.remembered(row)[1].cells, mixed[row].cells)
    for verifier in (live, loaded):
        verifier.map_is(map_poses(VIEWS + 1))
        verdicts = verifier.expected_loops(VIEWS + 3)
        assert [c.state for c in verdicts] == [ClosureState.VERIFIED] * len(verdicts)
        assert {c.reference_id for c in verdicts} == {0, 3, 6}  # 9 is out of sight


def test_a_map_from_before_has_no_views_with_depth_and_gets_them(features, tmp_path):
    plain = [replace(one, cells=None) for one in features]
    part = saved_part(tmp_path / "map", "features", closer(plain, range(4)).save)
    assert TABLE not in part.tables
    verifier = LoopCloser(CONFIG)
    verifier.load(part)
    verifier.add_keyframe(keyframe(4), features[4])
    part = saved_part(tmp_path / "map", "features", verifier.save)
    assert part.table(TABLE).rows == 1
    assert same(StoredFeatures(part).remembered(4)[1].cells, features[4].cells)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: a.pop("near"), MapError, "no column 'near'"),
        (lambda a: a.update(near=a["near"][:, :30]), MapError, "'near' .* holds"),
        (lambda a: a.update(near=a["near"].astype("<f4")), MapError, "'near' .* holds"),
        (lambda a: a["ids"].fill(2), FeatureStateError, "views with depth are not"),
        (lambda a: a["ids"].__iadd__(50), FeatureStateError, "views with depth are not"),
    ],
)
def test_views_with_depth_that_do_not_fit_are_refused(features, tmp_path, change, error, message):
    verifier = closer(features, range(3))
    part = changed_part(tmp_path / "map", "features", verifier.save, TABLE, change)
    with pytest.raises(error, match=message):
        LoopCloser(CONFIG).load(part)
