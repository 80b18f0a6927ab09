"""Descriptors of short sequences: temporal filters over the single-image descriptors of a traverse.

Smoothing and delta descriptors: Garg, Harwood, Anand & Milford, "Delta Descriptors: Change-Based
Place Representation for Robust Visual Localization", RA-L 2020. Learned ones: Garg & Milford,
"SeqNet: Learning Descriptors for Sequence-Based Hierarchical Place Recognition", RA-L 2021 (S1 of
one frame, S5 of five), and SeqMatchNet, which is an S1 trained for sequence matching.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # without PyTorch, which costs 200 MB, unless a network is asked for
    from vpr.models.seqnet import SeqNet

Descriptors = NDArray[np.float32]  # (N, D), L2-normalised rows


class TraverseLengthError(ValueError):
    """A traverse without frames."""


class TemporalEncoder(Protocol):
    """Descriptors of a traverse to descriptors of the sequences that end at each frame."""

    window: int  # frames that a descriptor is made of

    def dimension(self, single: int) -> int:
        """Length of the new descriptors, of single ones of this length."""
        ...

    def __call__(self, descriptors: Descriptors) -> Descriptors:
        """(N, D) single descriptors of one traverse to (N, D') L2-normalised ones.

        Before its beginning a traverse is taken to have stood still.
        """
        ...


class SingleEncoder:
    """Each frame by itself."""

    window = 1

    def dimension(self, single: int) -> int:
        return single

    def __call__(self, descriptors: Descriptors) -> Descriptors:
        return descriptors


class FilterEncoder:
    """The same weights over time for every element of the descriptor."""

    def __init__(self, weights: NDArray[np.float32]) -> None:
        """``weights``: (window,), the oldest frame's first."""
        self.window = len(weights)
        self._weights = weights

    def dimension(self, single: int) -> int:
        return single

    def __call__(self, descriptors: Descriptors) -> Descriptors:
        padded = standing_still_before(descriptors, self.window)
        count = len(descriptors)
        parts = (weight * padded[k : k + count] for k, weight in enumerate(self._weights))
        return normalised(np.sum(list(parts), axis=0, dtype=np.float32))


class SeqNetEncoder:
    """A learned temporal convolution."""

    def __init__(self, network: SeqNet) -> None:
        self.network = network
        self.window = network.window

    def dimension(self, single: int) -> int:
        self.network.check_input(single)
        return self.network.dimension

    def __call__(self, descriptors: Descriptors) -> Descriptors:
        self.network.check_input(descriptors.shape[1])
        return self.network.encode(standing_still_before(descriptors, self.window))


def smoothing(length: int) -> FilterEncoder:
    """The mean of the last ``length`` descriptors."""
    return FilterEncoder(np.full(length, 1.0 / length, np.float32))


def delta(length: int) -> FilterEncoder:
    """What changed: the newer half of the last ``length`` descriptors minus the older half."""
    half = max(1, length // 2)
    weights = np.zeros(max(length, 2), np.float32)
    weights[:half] = -1.0 / half
    weights[-half:] = 1.0 / half
    return FilterEncoder(weights)


def learned(weights: str) -> SeqNetEncoder:
    """A transform made by ``vpr train sequence``.

    Raises:
        WeightsError: no such file, or not such a transform.
    """
    from vpr.models.seqnet import read_seqnet

    return SeqNetEncoder(read_seqnet(Path(weights).expanduser()))


class LiveEncoder:
    """A temporal encoder fed one descriptor at a time."""

    def __init__(self, encoder: TemporalEncoder) -> None:
        self._encoder = encoder
        self._recent: deque[NDArray[np.float32]] = deque(maxlen=encoder.window)

    def forget(self) -> None:
        """The next descriptor begins a new traverse."""
        self._recent.clear()

    def __call__(self, descriptor: NDArray[np.float32]) -> NDArray[np.float32]:
        """(D',) the descriptor of the sequence that ends here."""
        if self._encoder.window == 1:
            return np.asarray(self._encoder(descriptor[None])[0])
        self._recent.append(descriptor)
        return np.asarray(self._encoder(np.stack(self._recent))[-1])


def standing_still_before(descriptors: Descriptors, window: int) -> Descriptors:
    """(N + window - 1, D): the first frame repeated before a traverse.

    Raises:
        TraverseLengthError: there is no frame.
    """
    if len(descriptors) == 0:
        raise TraverseLengthError("a traverse without a frame has no descriptors")
    return np.concatenate([np.repeat(descriptors[:1], window - 1, axis=0), descriptors])


def normalised(vectors: Descriptors) -> Descriptors:
    """L2-normalised rows; a row of zeros, which resembles nothing, stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
