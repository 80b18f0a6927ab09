import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.config import SequenceMatchingConfig
from vpr.places.sequence import SequenceMatcher, alignment_shifts, normalised_row


def config(length, slowest=0.8, fastest=1.25, steps=5):
    return SequenceMatchingConfig.from_file(
        sequence_length=length,
        min_speed_ratio=slowest,
        max_speed_ratio=fastest,
        speed_steps=steps,
    )


def brute_force_score(rows, place, starts, speeds, length):
    """Straight from the definition: one place, one speed, one row at a time."""
    start = max(first for first in starts if first <= place)
    window = rows[-length:]
    sums = []
    for speed in speeds:
        total = 0.0
        for age, row in enumerate(reversed(window)):
            aligned = place - round(speed * age)
            if start <= aligned < len(row):
                total += row[aligned]
        sums.append(total)
    return max(sums) / len(window)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(1, 30),
    st.sets(st.integers(1, 29), max_size=3),
    st.integers(0, 2),
    st.integers(0, 2**32 - 1),
)
def test_scores_equal_a_brute_force_alignment(length, pushes, places, borders, growth, seed):
    generator = np.random.default_rng(seed)
    matcher = SequenceMatcher(config(length))
    sizes = places + growth * np.arange(pushes)
    rows = [generator.normal(size=size).astype(np.float32) for size in sizes]
    for row in rows:
        matcher.push(row)
    starts = [0, *sorted(border for border in borders if border < sizes[-1])]
    speeds = np.geomspace(0.8, 1.25, 5)
    expected = [
        brute_force_score(rows, place, starts, speeds, length) for place in range(sizes[-1])
    ]
    np.testing.assert_allclose(matcher.scores(np.array(starts)), expected, atol=1e-5)


def test_a_window_of_one_is_the_newest_row():
    matcher = SequenceMatcher(config(1))
    matcher.push(np.array([9.0, 9.0], np.float32))
    matcher.push(np.array([0.5, -1.0, 2.0], np.float32))
    np.testing.assert_array_equal(matcher.scores(np.array([0])), [0.5, -1.0, 2.0])


def test_a_retraced_sequence_beats_a_single_look_alike():
    matcher = SequenceMatcher(config(5, 1.0, 1.0, 1))
    for query in range(5):
        row = np.zeros(40, np.float32)
        row[10 + query] = 2.0  # the way as it was driven before
        row[30] = 3.0  # one place that resembles everything
        matcher.push(row)
    assert matcher.scores(np.array([0])).argmax() == 14


def test_lines_do_not_run_from_one_session_into_the_next():
    matcher = SequenceMatcher(config(3, 1.0, 1.0, 1))
    for query in range(3):
        row = np.zeros(10, np.float32)
        row[4 + query] = 3.0  # would be one line if 5 did not begin a session
        matcher.push(row)
    assert matcher.scores(np.array([0]))[6] == 3.0
    assert matcher.scores(np.array([0, 5]))[6] == 2.0


def test_clearing_begins_a_new_window():
    matcher = SequenceMatcher(config(3))
    matcher.push(np.ones(4, np.float32))
    matcher.clear()
    matcher.push(np.full(4, 2.0, np.float32))
    assert len(matcher) == 1
    np.testing.assert_array_equal(matcher.scores(np.array([0])), np.full(4, 2.0))


def test_shifts_start_at_zero_and_cover_the_speeds():
    shifts = alignment_shifts(config(11, 0.8, 1.25, 5))
    assert (shifts[:, 0] == 0).all()
    assert shifts[:, -1].min() == 8
    assert shifts[:, -1].max() == 12
    assert len(np.unique(shifts, axis=0)) == len(shifts)


@given(
    st.integers(2, 40),
    st.floats(0.1, 10),
    st.floats(-5, 5),
    st.floats(0, 10),
    st.integers(0, 2**32 - 1),
)
def test_normalising_does_not_see_scale_or_offset(places, scale, offset, prior, seed):
    row = np.random.default_rng(seed).normal(size=places).astype(np.float32)
    moved = (scale * row + offset).astype(np.float32)
    first, second = normalised_row(row, places, prior), normalised_row(moved, places, prior)
    np.testing.assert_allclose(first, second, atol=1e-3)
    assert first.argmax() == row.argmax()


def test_recent_places_do_not_count_in_the_statistics():
    row = np.array([0.1, 0.2, 0.3, 0.2, 0.99, 0.99], np.float32)
    np.testing.assert_allclose(
        normalised_row(row, 4, 2.0)[:4], normalised_row(row[:4], 4, 2.0), rtol=1e-6
    )


def test_a_short_memory_cannot_stand_out_far():
    hit = np.zeros(300, np.float32)
    hit[0] = 1.0
    strengths = [normalised_row(hit[:count], count, 2.0)[0] for count in (2, 5, 20, 300)]
    assert strengths == sorted(strengths)
    assert strengths[0] <= 1.0
    np.testing.assert_array_equal(normalised_row(hit[:1], 1, 2.0), [0.0])


def test_rows_without_information_are_zero():
    np.testing.assert_array_equal(normalised_row(np.ones(5, np.float32), 5, 2.0), np.zeros(5))
    np.testing.assert_array_equal(normalised_row(np.arange(3, dtype=np.float32), 0, 2.0), [0, 0, 0])
