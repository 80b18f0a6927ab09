"""Fitting P(same place) to distances, measuring how well it is calibrated, choosing a threshold.

Everything here is fitted on drives that the descriptor was not trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from vpr.learning.errors import TrainingError
from vpr.learning.retrieval import Matches
from vpr.models.calibration import FallingMap, PrecisionThreshold, ReducedMap

BIN_MATCHES = 25  # matches whose share of right ones is one point of the fit
MIN_MATCHES = 100
MIN_OF_EACH = 10  # right ones, and wrong ones
RELIABILITY_BINS = 15
PENALTY = 100.0  # inverse, on standardised coefficients: only what nothing tells is held at zero


@dataclass(frozen=True)
class JudgedMatches:
    """M matches with their verdict by GPS and the drive of their query.

    ``impostor_distances`` and ``places`` are what ``ReducedMap.reduced`` takes.
    """

    distances: NDArray[np.float64]
    correct: NDArray[np.bool_]
    drive: NDArray[np.int64]
    impostor_distances: NDArray[np.float64]
    places: NDArray[np.int64]

    @classmethod
    def best(
        cls, matches: Matches, drive: NDArray[np.int64], impostors: NDArray[np.float64]
    ) -> JudgedMatches:
        """The nearest match of each query.

        Args:
            drive, impostors: (N,) drive and impostor distance of each row matched.
        """
        return cls._of(matches, drive, impostors, slice(0, 1))

    @classmethod
    def further(
        cls, matches: Matches, drive: NDArray[np.int64], impostors: NDArray[np.float64]
    ) -> JudgedMatches:
        """All but the nearest one; arguments as of ``best``."""
        return cls._of(matches, drive, impostors, slice(1, None))

    @classmethod
    def together(cls, parts: Sequence[JudgedMatches]) -> JudgedMatches:
        """All matches of some lots."""
        columns = (
            "distances", "correct", "drive", "impostor_distances", "places",
        )  # fmt: skip
        return cls(*(np.concatenate([getattr(p, column) for p in parts]) for column in columns))

    def reduced_by(self, calibration: ReducedMap) -> JudgedMatches:
        """The same with distances as the map reads them."""
        reduced = calibration.reduced(self.distances, self.impostor_distances, self.places)
        return replace(self, distances=reduced)

    @classmethod
    def _of(
        cls,
        matches: Matches,
        drive: NDArray[np.int64],
        impostors: NDArray[np.float64],
        ranks: slice,
    ) -> JudgedMatches:
        distances = matches.distances[:, ranks]
        found = np.isfinite(distances)
        queries = np.broadcast_to(matches.queries[:, None], distances.shape)[found]
        references = matches.references[:, ranks][found]
        places = np.broadcast_to(matches.places[:, None], distances.shape)[found]
        return cls(
            distances[found],
            matches.correct[:, ranks][found],
            drive[queries],
            (impostors[queries] + impostors[references]) / 2.0,
            places,
        )


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: bins of predicted probability, those without a match left out."""

    predicted: NDArray[np.float64]  # mean of each bin
    observed: NDArray[np.float64]  # share of right matches
    counts: NDArray[np.int64]

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean of |observed - predicted| over all matches."""
        gaps = np.abs(self.observed - self.predicted)
        return float((gaps * self.counts).sum() / max(self.counts.sum(), 1))


def fit_reduced_map(matches: JudgedMatches, min_of_each: int = MIN_OF_EACH) -> ReducedMap:
    """Weigh the influence of impostors and of the memory's size, then fit what is left.

    Args:
        min_of_each: right and wrong matches there must be; with fewer than ``MIN_OF_EACH`` nothing
            is weighed.

    Raises:
        TrainingError: too few matches, or too few of one kind; says how many are needed.
    """
    right = int(matches.correct.sum())
    fewer = min(right, len(matches.correct) - right)
    if len(matches.correct) < MIN_MATCHES or fewer < min_of_each:
        raise TrainingError(
            f"{right} right and {len(matches.correct) - right} wrong matches to calibrate on; "
            f"{MIN_MATCHES} are needed, {min_of_each} of each kind: hold out more or longer drives"
        )
    impostors, places = _weights(matches) if fewer >= MIN_OF_EACH else (0.0, 0.0)
    reduction = ReducedMap(
        distances=(0.0,), probabilities=(0.0,), impostor_weight=impostors, places_weight=places
    )
    falling = fit_falling_map(matches.reduced_by(reduction))
    return reduction.model_copy(update=falling.model_dump())


def _weights(matches: JudgedMatches) -> tuple[float, float]:
    """What impostor distance and log(places) weigh in a logistic regression, beside the distance.

    An influence that points the wrong way is none.
    """
    causes = np.stack(
        [matches.distances, matches.impostor_distances, np.log(matches.places)], axis=1
    )
    scaler = StandardScaler().fit(causes)
    fit = LogisticRegression(C=PENALTY).fit(scaler.transform(causes), matches.correct)
    by_distance, by_impostors, by_places = fit.coef_[0] / scaler.scale_
    if by_distance >= 0.0:
        return 0.0, 0.0
    return max(0.0, -by_impostors / by_distance), max(0.0, by_places / by_distance)


def fit_falling_map(matches: JudgedMatches) -> FallingMap:
    """Isotonic regression of the verdicts on the distances, by bins of equal count.

    Level between the ends of a stretch, linear from one to the next. The share of a stretch counts
    half a match more of each kind (Jeffreys), so that no match is said to be certain.
    """
    order = np.argsort(matches.distances, kind="stable")
    parts = np.array_split(order, max(2, len(order) // BIN_MATCHES))
    counts = np.array([len(part) for part in parts], float)
    rights = np.array([matches.correct[part].sum() for part in parts], float)
    centres = np.array([matches.distances[part].mean() for part in parts])
    fitted = isotonic_regression(rights / counts, weights=counts, increasing=False).x
    first = np.flatnonzero(np.diff(fitted, prepend=np.inf))  # of each level stretch
    last = np.append(first[1:], len(fitted)) - 1
    shares = np.add.reduceat(rights, first) + 0.5
    shares = np.minimum.accumulate(shares / (np.add.reduceat(counts, first) + 1.0))
    knots = np.stack([centres[first], centres[last]], axis=1).ravel()
    distinct = np.append(True, np.diff(knots) > 1e-9)
    return FallingMap(
        distances=tuple(knots[distinct].tolist()),
        probabilities=tuple(np.repeat(shares, 2)[distinct].tolist()),
    )


def reliability(
    probabilities: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = RELIABILITY_BINS
) -> Reliability:
    """Predicted against observed, in bins of equal width over 0 .. 1."""
    index = np.clip((probabilities * bins).astype(np.int64), 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    used = counts > 0
    predicted = np.bincount(index, probabilities, bins)[used] / counts[used]
    observed = np.bincount(index, correct, bins)[used] / counts[used]
    return Reliability(predicted, observed, counts[used].astype(np.int64))


def choose_threshold(
    matches: JudgedMatches, wanted_precision: float, wanted_drives: float, confidence: float
) -> PrecisionThreshold:
    """A distance below which matches are right with the wanted precision on most new drives.

    The matches of one drive stand or fall together, so the drive is the unit. Each of n
    calibration drives has a largest distance up to which its own precision holds; the (f+1)-th
    smallest of them is one that f drives do not hold. Taken is the largest f from which follows
    with ``confidence`` that a share ``wanted_drives`` of all such drives holds it (Wilks,
    "Determination of sample sizes for setting tolerance limits", 1941); none, f = 0, where the
    drives are too few for any.
    """
    drives = np.unique(matches.drive)
    limits = np.sort([_limit(matches, drive, wanted_precision) for drive in drives])
    shares = assured_share(len(limits), np.arange(len(limits)), confidence)
    failing = max(int((shares >= wanted_drives).sum()) - 1, 0)
    distance = float(limits[failing])
    return PrecisionThreshold(
        distance=distance,
        wanted_precision=wanted_precision,
        wanted_drives=wanted_drives,
        confidence=confidence,
        assured_drives=float(shares[failing]),
        drives=len(limits),
        accepted=int((matches.distances <= distance).sum()),
    )


def assured_share(
    drives: int, failing: NDArray[np.int64], confidence: float
) -> NDArray[np.float64]:
    """Share of all drives that holds what all but ``failing`` of some drives did, at least.

    The one-sided bound of Clopper & Pearson; falls with ``failing``.
    """
    return np.asarray(beta.ppf(1.0 - confidence, drives - failing, failing + 1))


def drives_needed(wanted_drives: float, confidence: float) -> int:
    """How many calibration drives assure a share of all drives when none of them fails."""
    return math.ceil(math.log(1.0 - confidence) / math.log(wanted_drives) - 1e-9)


def precision_held(matches: JudgedMatches, distance: float, wanted: float) -> NDArray[np.bool_]:
    """For each drive, whether its matches up to a distance are right often enough."""
    held = []
    for drive in np.unique(matches.drive):
        accepted = (matches.drive == drive) & (matches.distances <= distance)
        held.append(not accepted.any() or matches.correct[accepted].mean() >= wanted)
    return np.array(held)


def _limit(matches: JudgedMatches, drive: int, wanted: float) -> float:
    """The largest distance such that the drive's precision holds there and everywhere below."""
    own = matches.drive == drive
    order = np.argsort(matches.distances[own], kind="stable")
    distances, correct = matches.distances[own][order], matches.correct[own][order]
    precision = np.cumsum(correct) / np.arange(1, len(correct) + 1)
    failing = np.flatnonzero(precision < wanted)
    if len(failing) == 0:
        return float(distances[-1])
    return float(np.nextafter(distances[failing[0]], 0.0))
