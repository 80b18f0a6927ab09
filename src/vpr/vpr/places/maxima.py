"""The best places that are not merely each other's neighbours."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

BLOCK = 64  # places whose best score is kept, so that those of most are looked at once


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _highest(scores: NDArray[np.float32], first: int) -> float:
    """Of the block that begins there."""
    highest = scores[first]
    for k in range(first + 1, min(first + BLOCK, len(scores))):
        highest = max(highest, scores[k])
    return float(highest)


@njit(cache=True, nogil=True)
def _pick(
    scores: NDArray[np.float32],
    steps: NDArray[np.int64],
    separation: int,
    picked: NDArray[np.int64],
) -> int:
    """Fill ``picked``, best first, and empty ``scores`` around them; returns how many there are."""
    blocks = np.empty(-(-len(scores) // BLOCK), np.float32)
    for block in range(len(blocks)):
        blocks[block] = _highest(scores, block * BLOCK)
    for count in range(len(picked)):
        first = int(blocks.argmax()) * BLOCK
        best = first + int(scores[first : first + BLOCK].argmax())
        if scores[best] == -np.inf:
            return count
        picked[count] = best
        low = high = best
        while low > 0 and steps[low - 1] > steps[best] - separation:
            low -= 1
        while high < len(scores) and steps[high] < steps[best] + separation:
            high += 1
        scores[low:high] = -np.inf
        for block in range(low // BLOCK, (high - 1) // BLOCK + 1):
            blocks[block] = _highest(scores, block * BLOCK)
    return len(picked)


def distinct_maxima(
    scores: NDArray[np.float32], count: int, separation: int, steps: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices of the highest scores, best first, of places at least ``separation`` apart.

    Args:
        scores: (N,), none of them NaN; -inf is out of question.
        steps: (N,) ascending; where the place of each score is.
    """
    picked = np.empty(min(count, len(scores)), np.int64)
    return picked[: _pick(scores.copy(), steps, separation, picked)]


def load_kernels() -> None:
    """Compile now, or load from numba's cache, rather than at the first frame."""
    distinct_maxima(np.zeros(1, np.float32), 1, 1, np.zeros(1, np.int64))
