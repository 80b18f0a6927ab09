import numpy as np
import pytest
from saved_part import changed_part, saved_part

from vpr.maps.table import MapError
from vpr.places.memory import TABLE, ChosenPlaces, PlaceMemory, StateError
from vpr.records import GpsFix, Keyframe


def keyframe(identifier, session, **changes):
    generator = np.random.default_rng(identifier)
    descriptor = generator.normal(size=5).astype(np.float32)
    return Keyframe(identifier, session, 1000 * identifier, descriptor, "net@1", **changes)


@pytest.fixture
def memory():
    filled = PlaceMemory("net@1", 5)
    filled.append(keyframe(0, 0))
    filled.append(keyframe(1, 0, odometry=np.eye(4), odometry_covariance=np.eye(6)))
    filled.append(keyframe(2, 2, fix=GpsFix(48.0, 11.0, 500.0), frame_id="camera"))
    filled.append(keyframe(3, 2, fix=GpsFix(48.0, 11.0, 501.0, np.eye(3))))
    return filled


def test_sessions_are_runs_of_rows(memory):
    assert memory.session_starts.tolist() == [0, 2]


def save(memory):
    return lambda writer: writer.finish(len(memory), memory.save(writer))


def test_similarities_are_those_of_half_precision(memory):
    query = keyframe(2, 0).descriptor
    exact = [keyframe(i, 0).descriptor @ query for i in range(4)]
    np.testing.assert_allclose(memory.similarities(query), exact, rtol=2e-3, atol=2e-3)


def test_what_was_not_measured_is_nan(memory, tmp_path):
    stored = saved_part(tmp_path / "map", "places", save(memory)).table(TABLE).arrays()
    assert np.isnan(stored["odometry"][0]).all()
    np.testing.assert_array_equal(stored["odometry"][1], np.eye(4))
    assert np.isnan(stored["fixes"][:2]).all()
    np.testing.assert_array_equal(stored["fixes"][2], [48.0, 11.0, 500.0])
    assert np.isnan(stored["fix_covariance"][2]).all()


def test_a_map_holds_everything_and_grows_from_either_side(memory, tmp_path):
    folder = tmp_path / "map"
    loaded = PlaceMemory.of_map(saved_part(folder, "places", save(memory)))
    assert loaded.session_starts.tolist() == [0, 2]
    query = keyframe(9, 0).descriptor
    for one in (memory, loaded):
        one.append(keyframe(4, 3, frame_id="rear"))
        assert one.session_starts.tolist() == [0, 2, 4]
        assert one.column("ids").tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(loaded.similarities(query), memory.similarities(query))
    part = saved_part(folder, "places", save(loaded))
    assert part.metadata == {"model": "net@1", "frame_ids": ["", "camera", "rear"]}
    whole = saved_part(tmp_path / "copy", "places", save(loaded))
    for name, rows in part.table(TABLE).arrays().items():
        assert len(rows) == 5
        np.testing.assert_array_equal(rows, whole.table(TABLE).arrays()[name])
    assert part.table(TABLE).arrays()["frames"].tolist() == [0, 0, 1, 0, 2]
    memory.append(keyframe(5, 3))
    assert saved_part(folder, "places", save(memory)).count == 6


def test_places_described_by_another_model_keep_all_else(memory, tmp_path):
    loaded = PlaceMemory.of_map(saved_part(tmp_path / "map", "places", save(memory)))
    loaded.append(keyframe(4, 3, odometry=2.0 * np.eye(4), frame_id="rear"))
    loaded.forget(2)
    described = loaded.described_by("net@2", lambda rows: -rows[:, :3])
    assert (described.model, described.dimension, len(described)) == ("net@2", 3, 5)
    assert described.session_starts.tolist() == [0, 2, 4]
    assert described.forgotten == loaded.forgotten
    parts = [
        saved_part(tmp_path / name, "places", save(one))
        for name, one in (("before", loaded), ("after", described))
    ]
    before, after = (part.table(TABLE).arrays() for part in parts)
    np.testing.assert_array_equal(after.pop("descriptors"), -before.pop("descriptors")[:, :3])
    for name, rows in before.items():
        np.testing.assert_array_equal(after[name], rows)
    assert parts[1].metadata == parts[0].metadata | {"model": "net@2"}


def test_chosen_places_are_searched_alone(memory):
    chosen = ChosenPlaces(memory, np.array([1, 2, 3]))
    query = keyframe(9, 0).descriptor
    assert len(chosen) == 3
    assert chosen.column("ids").tolist() == [1, 2, 3]
    assert chosen.session_starts.tolist() == [0, 1]
    np.testing.assert_array_equal(chosen.similarities(query), memory.similarities(query)[1:])


def test_another_map_is_not_added_to(memory, tmp_path):
    saved_part(tmp_path / "map", "places", save(memory))
    few, others = PlaceMemory("net@1", 5), PlaceMemory("net@1", 5)
    few.append(keyframe(0, 0))
    for i in range(10, 15):
        others.append(keyframe(i, 0))
    with pytest.raises(StateError, match="the map has 4 places, here are only 1"):
        saved_part(tmp_path / "map", "places", save(few))
    with pytest.raises(StateError, match="place 3 of the map is another one"):
        saved_part(tmp_path / "map", "places", save(others))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: a.pop("ids"), MapError, "no column 'ids'"),
        (lambda a: a.update(fixes=a["fixes"][:, :2]), MapError, "'fixes' .* holds"),
        (lambda a: a.update(descriptors=a["descriptors"][:, 0]), MapError, "'descriptors' .* hold"),
        (lambda a: a.update(ids=a["ids"][::-1]), StateError, "out of order"),
        (lambda a: a.update(sessions=a["sessions"][::-1]), StateError, "out of order"),
    ],
)
def test_a_map_that_contradicts_itself_is_refused(memory, tmp_path, change, error, message):
    part = changed_part(tmp_path / "map", "places", save(memory), TABLE, change)
    with pytest.raises(error, match=message):
        PlaceMemory.of_map(part)
