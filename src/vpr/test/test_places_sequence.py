from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vpr.config import SequenceMatchingConfig
from vpr.places.convolution import SequenceLengthError, sequence_distances
from vpr.places.diagonal_sums import DiagonalSums
from vpr.places.line_sums import LineRow, LineSums
from vpr.places.lines import RESOLUTION, LineMatcher, phases_of, quantised
from vpr.places.sequence import (
    SequenceMatcher,
    contrast_enhanced,
    normalised_row,
    searched_slopes,
)


def config(length, slowest=0.8, fastest=1.25, steps=5, reverse=False):
    return SequenceMatchingConfig.from_file(
        sequence_length=length,
        min_speed_ratio=slowest,
        max_speed_ratio=fastest,
        speed_steps=steps,
        search_reverse=reverse,
    )


def steady(length):
    return config(length, 1.0, 1.0, 1)


def representable(generator, shape):
    """Values that a quantised row holds without rounding."""
    return (generator.integers(-4000, 4000, shape) * RESOLUTION).astype(np.float32)


def brute_force_score(rows, place, session, slopes, length):
    """Straight from the definition: one place, one slope, one row at a time."""
    first, last = session
    now = len(rows)
    best = -np.inf
    for slope in slopes:
        total = 0.0
        phase = min(phases_of(slope), key=lambda phase: abs((slope * now + phase) % 1.0 - 0.5))
        for age, row in enumerate(reversed(rows[-length:])):
            moved = np.floor(slope * now + phase) - np.floor(slope * (now - age) + phase)
            aligned = place - int(moved)
            if first <= aligned < min(last, len(row)):
                total += row[aligned]
        best = max(best, total)
    return best / min(now, length)


@settings(max_examples=80, deadline=None)
@given(
    length=st.integers(1, 9),
    pushes=st.integers(1, 14),
    places=st.integers(1, 30),
    borders=st.sets(st.integers(1, 29), max_size=3),
    growth=st.integers(0, 300),
    reverse=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@example(length=3, pushes=5, places=1, borders=set(), growth=1, reverse=True, seed=2)
def test_scores_equal_a_brute_force_alignment(
    length, pushes, places, borders, growth, reverse, seed
):
    generator = np.random.default_rng(seed)
    chosen = config(length, reverse=reverse)
    matcher = SequenceMatcher(chosen)
    sizes = places + growth * np.arange(pushes)
    rows = [representable(generator, size) for size in sizes]
    starts = np.array([0, *sorted(border for border in borders if border < places)])
    for row in rows:
        matcher.push(row, starts)
    sessions = list(pairwise([*starts, sizes[-1]]))
    checked = generator.choice(sizes[-1], min(sizes[-1], 40), replace=False)
    expected = [
        brute_force_score(
            rows,
            place,
            next(session for session in sessions if session[0] <= place < session[1]),
            searched_slopes(chosen),
            length,
        )
        for place in checked
    ]
    scores = matcher.scores(starts, sizes[-1])
    np.testing.assert_allclose(scores[checked], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(matcher.scores_at(checked, starts), scores[checked])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([0.5, 0.8, 1.25, 1.5]), st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_a_line_is_rounded_from_the_newest_frame_where_its_slope_is_a_fraction(slope, length, seed):
    matrix = representable(np.random.default_rng(seed), (40, 60))
    matcher = LineMatcher(length, np.array([slope]))
    ages = np.arange(length)
    places = np.arange(60)[:, None] - np.ceil(slope * ages - 0.5 - 1e-6).astype(int)
    for now, row in enumerate(matrix):
        matcher.push(quantised(row))
        if now >= length - 1:
            met = np.where(places >= 0, matrix[now - ages, np.maximum(places, 0)], 0.0)
            np.testing.assert_allclose(matcher.best(60), met.mean(axis=1), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(0, 20), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_live_matching_equals_the_convolution_exactly(length, more, references, seed):
    generator = np.random.default_rng(seed)
    references += length
    matrix = representable(generator, (length + more, references))
    convolved = sequence_distances(torch.from_numpy(matrix).double(), length).numpy()
    matcher = LineMatcher(length, np.ones(1))
    for query, row in enumerate(matrix):
        matcher.push(quantised(row))
        if query >= length - 1:
            live = matcher.best(references).astype(np.float64)[length - 1 :]
            exact = convolved[query - length + 1]
            np.testing.assert_array_equal(
                np.rint(live * length / RESOLUTION), np.rint(exact * length / RESOLUTION)
            )


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 8), st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_the_convolution_is_the_mean_along_diagonals(length, more, further, seed):
    matrix = torch.from_numpy(
        np.random.default_rng(seed).normal(size=(length + more, length + further))
    )
    found = sequence_distances(matrix, length)
    assert found.shape == (more + 1, further + 1)
    for query in range(more + 1):
        for reference in range(further + 1):
            block = matrix[query : query + length, reference : reference + length]
            torch.testing.assert_close(
                found[query, reference], block.diagonal().mean(), rtol=1e-9, atol=1e-12
            )


def test_the_convolution_has_the_right_gradient():
    matrix = torch.rand(5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: sequence_distances(given, 3), matrix)


def test_the_convolution_refuses_traverses_shorter_than_the_sequence():
    with pytest.raises(SequenceLengthError, match="sequences of 4 frames need"):
        sequence_distances(torch.zeros(3, 10), 4)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_sparse_rows_score_as_dense_rows_of_zeros(length, seed):
    generator = np.random.default_rng(seed)
    starts, count = np.array([0, 13]), 40
    dense, sparse, mixed = (SequenceMatcher(config(length)) for _ in range(3))
    for _ in range(16):
        places = np.sort(generator.choice(count, 6, replace=False))
        values = representable(generator, 6)
        row = np.zeros(count, np.float32)
        row[places] = values
        advance = int(generator.integers(0, 3))
        dense.push(row, starts, advance)
        sparse.push_sparse(places, values, starts, count, advance)
        if generator.random() < 0.8:
            mixed.push(row, starts, advance)
        else:
            mixed.push_sparse(places, values, starts, count, advance)
    expected = dense.scores(starts, count)
    np.testing.assert_array_equal(sparse.scores_at(np.arange(count), starts), expected)
    np.testing.assert_array_equal(mixed.scores(starts, count), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_sums_along_diagonals_are_those_of_the_lines(length, growth, seed):
    generator = np.random.default_rng(seed)
    slopes = np.array([-0.95, 0.9, 1.0, 1.11])
    phases = [phases_of(slope) for slope in slopes]
    kinds = LineSums(slopes, phases, 1000), DiagonalSums(length, slopes, phases, 1000)
    rows = [
        LineRow(
            frame, generator.integers(-4000, 4000, 20 + growth * (frame % 9)).astype("i2"), None
        )
        for frame in range(7, 7 + 2 * length)
    ]
    for index, row in enumerate(rows):
        for sums in kinds:
            if index < length:
                sums.add(row)
            else:
                sums.exchange(row, rows[index - length])
        carried, differences = (sums.highest(row.frame, len(row.values), 1.0) for sums in kinds)
        np.testing.assert_array_equal(carried, differences)


def test_sums_since_ever_may_wrap_round():
    matcher = LineMatcher(8, np.array([0.9, 1.0, 1.11]))
    brightest = quantised(np.full(4, 31.0, np.float32))
    for _ in range(2**31 // int(31.0 / RESOLUTION) + 8):
        matcher.push(brightest)
    assert matcher.best(4)[0] == np.float32(31.0 / 8)  # of the newest row alone
    matcher.push(brightest)
    assert matcher.best(4).tolist() == (np.arange(1, 5) * np.float32(31.0 / 8)).tolist()


def test_long_drives_do_not_drift():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(3000, 20)).astype(np.float32)
    long, fresh = SequenceMatcher(steady(4)), SequenceMatcher(steady(4))
    for row in rows:
        long.push(row, np.array([0]))
    for row in rows[-4:]:
        fresh.push(row, np.array([0]))
    np.testing.assert_array_equal(long.scores(np.array([0]), 20), fresh.scores(np.array([0]), 20))


def test_a_window_of_one_is_the_newest_row():
    matcher = SequenceMatcher(config(1))
    matcher.push(np.array([9.0, 9.0], np.float32), np.array([0]))
    newest = np.array([0.5, -1.0, 2.0], np.float32)
    matcher.push(newest, np.array([0]))
    np.testing.assert_array_equal(matcher.scores(np.array([0]), 3), newest)


def test_a_sequence_outvotes_a_single_look_alike():
    matcher = SequenceMatcher(steady(3))
    for query in range(3):
        row = np.zeros(20, np.float32)
        row[5 + query] = 2.0
        if query == 2:
            row[15] = 3.0  # resembles the newest view alone
        matcher.push(row, np.array([0]))
    assert matcher.scores(np.array([0]), 20).argmax() == 7


def test_a_faster_drive_is_matched_by_its_slope():
    matcher = SequenceMatcher(config(8, 0.5, 2.0, 3))
    for query in range(8):
        row = np.zeros(30, np.float32)
        row[2 * query] = 1.0
        matcher.push(row, np.array([0]))
    scores = matcher.scores(np.array([0]), 30)
    assert scores.argmax() == 14
    assert scores[14] == 1.0


def test_a_path_driven_backwards_is_found_where_it_is_searched():
    forwards, both = SequenceMatcher(steady(5)), SequenceMatcher(config(5, 1.0, 1.0, 1, True))
    for query in range(5):
        row = np.zeros(30, np.float32)
        row[20 - query] = 1.0
        for matcher in (forwards, both):
            matcher.push(row, np.array([0]))
    assert both.scores(np.array([0]), 30)[16] == 1.0
    assert forwards.scores(np.array([0]), 30).max() < 0.5


def test_lines_do_not_run_from_one_session_into_the_next():
    one, two = SequenceMatcher(steady(3)), SequenceMatcher(steady(3))
    for query in range(3):
        row = np.zeros(10, np.float32)
        row[4 + query] = 3.0  # would be one line if 5 did not begin a session
        one.push(row, np.array([0]))
        two.push(row, np.array([0, 5]))
    assert one.scores(np.array([0]), 10)[6] == 3.0
    assert two.scores(np.array([0, 5]), 10)[6] == 2.0


def test_a_view_that_has_not_moved_on_replaces_the_newest():
    waiting, driving = SequenceMatcher(steady(3)), SequenceMatcher(steady(3))
    rows = np.eye(6, dtype=np.float32)
    for row in rows[:3]:
        driving.push(row, np.array([0]))
    for row in (rows[0], rows[1], rows[5]):
        waiting.push(row, np.array([0]))
    waiting.push(rows[2], np.array([0]), advance=0)
    np.testing.assert_array_equal(
        waiting.scores(np.array([0]), 6), driving.scores(np.array([0]), 6)
    )


def test_clearing_begins_a_new_window():
    matcher = SequenceMatcher(config(3))
    matcher.push(np.ones(4, np.float32), np.array([0]))
    matcher.clear()
    matcher.push(np.full(4, 2.0, np.float32), np.array([0]))
    assert len(matcher) == 1
    np.testing.assert_array_equal(matcher.scores(np.array([0]), 4), np.full(4, 2.0))


def test_slopes_cover_the_speeds_both_ways_if_wanted():
    np.testing.assert_allclose(searched_slopes(config(5, 0.5, 2.0, 3)), [0.5, 1.0, 2.0])
    np.testing.assert_allclose(
        searched_slopes(config(5, 0.5, 2.0, 3, True)), [0.5, 1.0, 2.0, -0.5, -1.0, -2.0]
    )


def test_local_contrast_raises_the_peak_over_the_plateau():
    row = np.zeros(200, np.float32)
    row[:100] = np.tile([1.9, 2.1], 50)  # a stretch that all looks alike
    row[150] = 1.5  # one place that stands out of its surroundings
    assert row.argmax() < 100
    assert contrast_enhanced(row, 21).argmax() == 150
    assert np.isfinite(contrast_enhanced(np.zeros(5, np.float32), 3)).all()


@settings(deadline=None)
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
