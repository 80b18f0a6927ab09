import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.config import SequenceMatchingConfig
from vpr.geometry import pose_from_xy_yaw
from vpr.places.alignment import Odometer, PlaceGrid
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


def test_without_odometry_or_step_every_frame_is_a_cell():
    assert [Odometer(1.0).advance(None) for _ in range(3)] == [1, 1, 1]
    assert [Odometer(0.0).advance(pose_at(metres)) for metres in (0, 0, 9)] == [1, 1, 1]


def test_a_cell_holds_its_most_similar_place_and_gaps_the_nearest():
    grid = PlaceGrid()
    for advance, new_session in ((1, True), (0, False), (3, False), (1, False), (7, True)):
        grid.append(advance, new_session)
    assert len(grid) == 6
    assert not grid.one_to_one
    np.testing.assert_array_equal(grid.session_starts, [0, 5])
    np.testing.assert_array_equal(grid.cell_of_place, [0, 0, 3, 4, 5])
    row = grid.row(np.array([0.1, 0.9, 0.4, 0.3, 0.2], np.float32))
    np.testing.assert_array_equal(row, np.array([0.9, 0.9, 0.4, 0.4, 0.3, 0.2], np.float32))
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
