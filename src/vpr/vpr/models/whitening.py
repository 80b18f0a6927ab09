"""PCA-whitening of descriptors: fitted once on a set of descriptors, kept in a file.

Jegou & Chum, "Negative evidences and co-occurrences in image retrieval: the benefit of PCA and
whitening", ECCV 2012.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file


class WhiteningError(ValueError):
    """A whitening that cannot be fitted, read or applied; says why."""


@dataclass(frozen=True)
class Whitening:
    """``normalise((x - mean) @ projection)``: mean (D,), projection (D, d), both float32."""

    mean: NDArray[np.float32]
    projection: NDArray[np.float32]

    def __call__(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Whitened, L2-normalised descriptors (B, d) of descriptors (B, D).

        Raises:
            WhiteningError: descriptors of another dimension.
        """
        if descriptors.shape[1] != len(self.mean):
            raise WhiteningError(
                f"whitening takes descriptors of {len(self.mean)} values, not "
                f"{descriptors.shape[1]}"
            )
        projected = (descriptors - self.mean) @ self.projection
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        return np.asarray(projected / np.maximum(lengths, 1e-12), np.float32)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the values."""
        return hashlib.sha256(self.mean.tobytes() + self.projection.tobytes()).digest()

    def save(self, path: Path | str) -> None:
        """Write a ``.safetensors`` file; replaces an older one only when complete."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        save_file({"mean": self.mean, "projection": self.projection}, partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path | str) -> Whitening:
        """Read what ``save`` wrote.

        Raises:
            WhiteningError: missing, corrupt or foreign file, or values that are not finite.
        """
        path = Path(path).expanduser()
        try:
            arrays = load_file(path)
        except (OSError, SafetensorError) as error:
            raise WhiteningError(f"cannot read whitening {path}: {error}") from error
        if set(arrays) != {"mean", "projection"}:
            raise WhiteningError(f"{path} is not a whitening: it holds {sorted(arrays)}")
        mean, projection = arrays["mean"], arrays["projection"]
        if mean.ndim != 1 or projection.ndim != 2 or projection.shape[0] != len(mean):
            raise WhiteningError(f"{path}: mean {mean.shape} does not fit {projection.shape}")
        if not (np.isfinite(mean).all() and np.isfinite(projection).all()):
            raise WhiteningError(f"{path} holds values that are not finite")
        return cls(mean.astype(np.float32), projection.astype(np.float32))


def fit_whitening(
    descriptors: NDArray[np.float32], dimension: int, shrinkage: float = 1e-3
) -> Whitening:
    """Fit to descriptors (N, D) of another drive, or of the one that is mapped; never of queries.

    Args:
        dimension: how many principal components are kept; less than N and at most D.
        shrinkage: added to each variance, as a share of the largest, so that directions with next
            to no variance are not blown up into noise.

    Raises:
        WhiteningError: too few descriptors, or values that are not finite.
    """
    count, available = descriptors.shape
    if not 0 < dimension <= min(count - 1, available):
        raise WhiteningError(
            f"{dimension} components need more than {dimension} descriptors of at least "
            f"{dimension} values; got {count} of {available}"
        )
    if not np.isfinite(descriptors).all():
        raise WhiteningError("a descriptor has a value that is not finite")
    mean = descriptors.mean(axis=0, dtype=np.float64)
    _, singular_values, directions = np.linalg.svd(descriptors - mean, full_matrices=False)
    variances = singular_values[:dimension] ** 2 / (count - 1)
    scales = 1.0 / np.sqrt(variances + shrinkage * variances[0])
    projection = directions[:dimension].T * scales
    return Whitening(mean.astype(np.float32), np.ascontiguousarray(projection, np.float32))
