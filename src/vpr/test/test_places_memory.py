import numpy as np
import pytest

from vpr.places.memory import PlaceMemory, StateError
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


def test_what_was_not_measured_is_nan(memory):
    assert np.isnan(memory.column("odometry")[0]).all()
    np.testing.assert_array_equal(memory.column("odometry")[1], np.eye(4))
    assert np.isnan(memory.column("fixes")[:2]).all()
    np.testing.assert_array_equal(memory.column("fixes")[2], [48.0, 11.0, 500.0])
    assert np.isnan(memory.column("fix_covariance")[2]).all()


def test_arrays_and_metadata_hold_everything(memory):
    restored = PlaceMemory.restored(memory.arrays(), memory.metadata())
    assert restored.metadata() == memory.metadata()
    assert restored.metadata()["frame_ids"] == ["", "", "camera", ""]
    assert restored.session_starts.tolist() == [0, 2]
    for name, array in memory.arrays().items():
        np.testing.assert_array_equal(restored.arrays()[name], array)
    restored.append(keyframe(4, 3))
    assert restored.session_starts.tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, m: a.pop("ids"), "lack ids"),
        (lambda a, m: m.pop("model"), "lack model"),
        (lambda a, m: a.update(stamps_ns=a["stamps_ns"][:2]), "stamps_ns is"),
        (lambda a, m: a.update(descriptors=a["descriptors"][0]), "not \\(places, dimension\\)"),
        (lambda a, m: a["descriptors"].fill(np.nan), "not finite"),
        (lambda a, m: a.update(ids=a["ids"][::-1]), "out of order"),
        (lambda a, m: a.update(sessions=a["sessions"][::-1]), "out of order"),
        (lambda a, m: m.update(frame_ids=[]), "0 frame ids for 4"),
    ],
)
def test_a_state_that_contradicts_itself_is_refused(memory, change, message):
    arrays, metadata = memory.arrays(), memory.metadata()
    change(arrays, metadata)
    with pytest.raises(StateError, match=message):
        PlaceMemory.restored(arrays, metadata)
