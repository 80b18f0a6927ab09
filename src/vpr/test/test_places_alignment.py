import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.config import SequenceMatchingConfig
from vpr.geometry import pose_from_xy_yaw
from vpr.places.alignment import DistanceGrid, Odometer
from vpr.places.memory import PlaceMemory
from vpr.places.recognizer import PlaceRecognizer

SECOND = 1_000_000_000


def pose_at(metres):
    return pose_from_xy_yaw(float(metres), 0.0, 0.0)


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=40), st.floats(0.2, 3.0))
def test_cells_passed_add_up_to_the_distance(steps, cell):
    odometer = Odometer(cell)
    driven = np.concatenate([[0.0], np.cumsum(steps)])
    passed = [odometer.advance(pose_at(metres)) for metres in driven]
    assert abs(sum(passed[1:]) - driven[-1] / cell) <= 1.0


def test_without_odometry_every_frame_is_a_cell():
    odometer = Odometer(1.0)
    assert [odometer.advance(None) for _ in range(3)] == [1, 1, 1]
    assert [odometer.advance(pose) for pose in (pose_at(0), None, pose_at(9))] == [1, 1, 1]


@settings(deadline=None)
@given(st.lists(st.none() | st.floats(-9.0, 9.0), min_size=1, max_size=30), st.integers(1, 29))
def test_many_frames_advance_as_one_after_the_other(metres, cut):
    poses = np.stack([np.full((4, 4), np.nan) if m is None else pose_at(m) for m in metres])
    single, many = Odometer(0.7), Odometer(0.7)
    expected = [single.advance(None if m is None else pose_at(m)) for m in metres]
    parts = [many.advances(part) for part in (poses[:cut], poses[cut:]) if len(part)]
    assert np.concatenate(parts).tolist() == expected


def test_a_cell_holds_its_most_similar_place_and_gaps_the_nearest():
    grid = DistanceGrid(PlaceMemory("net@1", 2), 1.0)
    for advance, new_session in ((1, True), (0, False), (3, False), (1, False), (7, True)):
        grid.append(advance, new_session)
    assert len(grid) == 6
    np.testing.assert_array_equal(grid.session_starts, [0, 5])
    np.testing.assert_array_equal(grid.cells_of(np.arange(5)), [0, 0, 3, 4, 5])
    similarities = np.array([0.1, 0.9, 0.4, 0.3, 0.2], np.float32)
    row = grid.row(similarities)
    np.testing.assert_array_equal(row, np.array([0.9, 0.9, 0.4, 0.4, 0.3, 0.2], np.float32))
    scores = grid.of_places(row, row, similarities)
    np.testing.assert_array_equal(scores, np.array([-np.inf, 0.9, 0.4, 0.3, 0.2], np.float32))
    assert [grid.cells_before(place) for place in (0, 2, 4, 5)] == [0, 3, 5, 6]


def look_at(world, metres, generator, noise):
    """The view between two landmarks a metre apart, in a light of its own."""
    before = int(metres)
    share = metres - before
    view = (1 - share) * world[before] + share * world[before + 1]
    view = view / np.linalg.norm(view) + noise * generator.normal(size=len(view)) / 8.0
    return (view / np.linalg.norm(view)).astype(np.float32)


def recall_over(path, alignment_step):
    """Share of the views along ``path`` (metres) found within a metre on a steady drive."""
    generator = np.random.default_rng(0)
    world = generator.normal(size=(62, 64))
    config = SequenceMatchingConfig.from_file(
        alignment_step=alignment_step,
        keyframe_translation=0.0,
        sequence_length=8,
        exclude_recent_keyframes=1000,
        min_probability=0.0,
    )
    places = PlaceRecognizer(config)
    for index in range(60):
        view = look_at(world, index, generator, 0.3)
        places.observe(index * SECOND, view, "net@1", pose_at(index))
    places.begin_session()
    right = []
    for index, metres in enumerate(path):
        view = look_at(world, metres, generator, 2.5)
        found = places.observe((100 + index) * SECOND, view, "net@1", pose_at(metres)).matches
        right.append(abs(found.candidates[0].reference_id - metres) <= 1.0)
    return np.mean(right[8:])


STOPPING = np.concatenate([np.arange(20), np.full(12, 19), np.arange(20, 40), np.full(12, 40)])
SLOW = np.arange(0, 50, 0.4)
FAST = np.arange(0, 59, 2.0)


@pytest.mark.parametrize("path", [STOPPING, SLOW, FAST])
def test_sequences_by_distance_survive_stops_and_other_speeds(path):
    aligned, by_frame = recall_over(path, 1.0), recall_over(path, 0.0)
    assert aligned >= 0.8
    assert aligned >= by_frame + 0.1
