"""A guessed pose orders candidates and does nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from test_verification_loop_closer import COUNT, closer, remember, true_pose
from test_verification_loop_closer import matches as matches_of_scene

from vpr.records import ClosureState, LoopClosure, MatchSource, PlaceMatch, PlaceMatches
from vpr.verification.pose_prior import CAPACITY, PosePrior

STAMP = 7


def at(x: float) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


def matches(*references: int, stamp: int = STAMP) -> PlaceMatches:
    candidates = tuple(
        PlaceMatch(reference, 0, reference, 0.1, 0.9, 0.5, MatchSource.SEQUENCE)
        for reference in references
    )
    return PlaceMatches(99, 1, stamp, candidates, 100, "")


def prior(sigma: float = 1.0) -> PosePrior:
    found = PosePrior(sigmas=3.0, slack=4.0)
    found.map_is({number: at(10.0 * number) for number in range(10)})
    found.guess(STAMP, at(30.0), np.eye(6) * sigma**2)
    return found


def order(found: PlaceMatches) -> list[int]:
    return [candidate.reference_id for candidate in found.candidates]


def test_likely_places_are_verified_first() -> None:
    assert order(prior().ordered(matches(8, 1, 3))) == [3, 8, 1]


def test_a_vague_guess_changes_nothing() -> None:
    assert order(prior(sigma=100.0).ordered(matches(8, 1, 3))) == [8, 1, 3]


def test_what_is_not_known_is_left_as_it_is() -> None:
    assert order(prior().ordered(matches(8, 1, 3, stamp=8))) == [8, 1, 3]
    assert order(prior().ordered(matches(77, 3, 8))) == [3, 77, 8]
    assert order(PosePrior(3.0, 4.0).ordered(matches(2, 1))) == [2, 1]


@given(st.lists(st.integers(0, 12), unique=True), st.floats(-50.0, 150.0))
def test_no_candidate_is_lost_or_changed(references: list[int], guessed: float) -> None:
    found = prior()
    found.guess(STAMP, at(guessed), np.eye(6))
    before = matches(*references)
    after = found.ordered(before)
    assert sorted(after.candidates, key=str) == sorted(before.candidates, key=str)
    assert (after.query_id, after.searched) == (before.query_id, before.searched)


def test_old_guesses_are_forgotten() -> None:
    found = prior()
    for stamp in range(100, 100 + CAPACITY):
        found.guess(stamp, at(0.0), np.eye(6))
    assert found.likely(STAMP, 3) is None
    assert found.likely(100, 0) is True


def verdicts_with(guessed: float | None) -> dict[int, LoopClosure]:
    """Of keyframes 9, 10 and 30 for one that is beside 10, after a guess along the way."""
    query = COUNT + 10
    verifier = closer()
    remember(verifier, [9, 10, 30, query])
    found = PosePrior(sigmas=3.0, slack=0.2)
    found.map_is({index: true_pose(index) for index in (9, 10, 30)})
    if guessed is not None:
        found.guess(query * 100_000_000, at(guessed), np.eye(6) * 0.01**2)
    closures = verifier.verify(found.ordered(matches_of_scene(query, 9, 10, 30)))
    return {closure.reference_id: closure for closure in closures}


def test_a_guess_ends_the_search_earlier_and_is_no_proof() -> None:
    without, right = verdicts_with(None), verdicts_with(true_pose(10)[0, 3])
    assert without[9].state == right[10].state == ClosureState.CANDIDATE
    assert without[10].rejected_by == right[9].rejected_by == "better_candidate"  # not looked at
    wrong = verdicts_with(true_pose(30)[0, 3])
    assert wrong[30].state == ClosureState.REJECTED
    assert wrong[30].rejected_by == "contradicts_odometry"  # as without the guess
    assert wrong[9].state == ClosureState.CANDIDATE
