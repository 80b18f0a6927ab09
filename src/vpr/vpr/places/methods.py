"""The family of sequence methods, each picked by its name in the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from vpr.config import ConfigError, SequenceMatchingConfig
from vpr.places.encoders import SingleEncoder, TemporalEncoder, delta, learned, smoothing


@dataclass(frozen=True)
class SequenceMethod:
    """What is compared, whether along sequences, and what shortlists the places."""

    name: str
    encoder: TemporalEncoder
    matched_frames: int  # rows matched along lines; 1 compares the newest alone
    shortlister: TemporalEncoder | None = None  # of the hierarchy: its nearest places are re-ranked


def make_method(config: SequenceMatchingConfig) -> SequenceMethod:
    """The configured method.

    Raises:
        ConfigError: a learned method without weights.
        WeightsError: weights that are missing, damaged, or of another kind.
    """
    name, length = config.method, config.sequence_length
    if name == "single":
        return SequenceMethod(name, SingleEncoder(), 1)
    if name == "smoothing":
        return SequenceMethod(name, smoothing(length), 1)
    if name == "delta":
        return SequenceMethod(name, delta(length), 1)
    if name == "sequence_matching":
        return SequenceMethod(name, SingleEncoder(), length)
    transform = learned(_given(config.transform, "transform", name))
    if name == "seqnet_single":
        return SequenceMethod(name, transform, 1)
    if name == "seqmatchnet":
        return SequenceMethod(name, transform, length)
    shortlister = learned(_given(config.shortlister, "shortlister", name))
    return SequenceMethod(name, transform, length, shortlister)


def _given(path: str, parameter: str, method: str) -> str:
    if not path:
        raise ConfigError(
            f"sequence_matching.{parameter} = '': method {method} needs the file of a transform "
            "made by 'vpr train sequence'"
        )
    return path
