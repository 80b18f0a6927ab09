"""What is trained: a head on features computed once, or the end of the trunk as well."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vpr.config import FineTuningConfig
from vpr.learning.errors import TrainingError
from vpr.learning.features import BATCH, Features, read_image
from vpr.learning.sampling import positive_pairs
from vpr.learning.whitening import learned_whitening
from vpr.models.embedder import Embedder
from vpr.models.head import DescriptorHead
from vpr.records import Image


class Learner(Protocol):
    """Rows of the drives to embeddings, by a module whose gradients are wanted."""

    module: nn.Module
    head: DescriptorHead

    def inputs(self, rows: NDArray[np.int64]) -> Tensor:
        """What ``module`` takes for these rows, on its device."""
        ...

    def embeddings(self) -> NDArray[np.float32]:
        """(N, d) of all rows, without gradients."""
        ...

    def trunk(self) -> dict[str, nn.Module]:
        """Modules of the backbone that are trained, by name."""
        ...


class HeadLearner:
    """A head on cached features: the images are not read again."""

    def __init__(self, head: DescriptorHead, features: NDArray[np.float32]) -> None:
        self.head = head
        self.module: nn.Module = head
        device = next(head.parameters()).device
        self._features = torch.from_numpy(features).to(device)

    def inputs(self, rows: NDArray[np.int64]) -> Tensor:
        """Features (B, D) of rows."""
        return self._features[torch.from_numpy(rows).to(self._features.device)]

    def embeddings(self) -> NDArray[np.float32]:
        """(N, d) of all rows."""
        with torch.inference_mode():
            return np.asarray(self.head(self._features).float().cpu().numpy(), np.float32)

    def trunk(self) -> dict[str, nn.Module]:
        """Nothing of the backbone."""
        return {}


class _TrunkAndHead(nn.Module):
    """Images as the network sees them to embeddings."""

    def __init__(self, embedder: Embedder, head: DescriptorHead) -> None:
        super().__init__()
        self._embedder, self.head = embedder, head
        self.network = embedder.network  # registered, so that its gradients are seen

    def forward(self, batch: Tensor) -> Tensor:
        embeddings: Tensor = self.head(self._embedder.describe(batch))
        return embeddings


class TrunkLearner:
    """The last ``unfreeze`` modules of the backbone with the head; images are read as needed.

    Decoding runs in threads; a row that is wanted twice in a batch is decoded once.

    Raises:
        EmbeddingError: fewer modules than that, or a whitening in between.
    """

    def __init__(
        self, head: DescriptorHead, embedder: Embedder, images: Sequence[Path], unfreeze: int
    ) -> None:
        self.head, self._embedder, self._images = head, embedder, images
        embedder.network.requires_grad_(False)
        self._trunk = embedder.trainable_tail(unfreeze)
        for module in self._trunk.values():
            module.requires_grad_(True)
        self.module: nn.Module = _TrunkAndHead(embedder, head)
        self._pool = ThreadPoolExecutor(2)

    def inputs(self, rows: NDArray[np.int64]) -> Tensor:
        """Images (B, h, w, 3) of rows."""
        return self._embedder.batch(list(self._pool.map(self._image, rows.tolist())))

    def embeddings(self) -> NDArray[np.float32]:
        """(N, d) of all rows."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(self._images), BATCH):
                rows = np.arange(start, min(start + BATCH, len(self._images)))
                parts.append(self.module(self.inputs(rows)).float().cpu().numpy())
        return np.concatenate(parts)

    def trunk(self) -> dict[str, nn.Module]:
        """The unfrozen modules."""
        return self._trunk

    def _image(self, row: int) -> Image:
        image = read_image(self._images[row])
        if image is None:
            raise TrainingError(f"{self._images[row]} can no longer be read")
        return image


def make_learner(
    features: Features, embedder: Embedder, config: FineTuningConfig, training: NDArray[np.int64]
) -> Learner:
    """A learner whose linear head begins at the learned whitening of the training rows."""
    head = make_head(features, config, training).to(embedder.device)
    if config.unfreeze:
        return TrunkLearner(head, embedder, features.drives.images, config.unfreeze)
    return HeadLearner(head, features.values)


def make_head(
    features: Features, config: FineTuningConfig, training: NDArray[np.int64]
) -> DescriptorHead:
    """A head at its beginning, the same for the same seed.

    Raises:
        TrainingError: fewer positive pairs than ``config.min_positives``.
    """
    values = features.values[training]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        head = DescriptorHead(
            config.head, values.shape[1], config.embedding_dimension, config.normalised
        )
    if config.head == "linear":
        pairs = positive_pairs(features.drives.viewpoints[training], config)
        head.begin_at(
            learned_whitening(values, pairs, config.embedding_dimension, config.whitening_shrinkage)
        )
    if not config.normalised:
        _spread_to_margin(head, values, config)
    return head


def _spread_to_margin(
    head: DescriptorHead, features: NDArray[np.float32], config: FineTuningConfig
) -> None:
    """Begin where two images at random are a margin apart: the loss then has both its terms."""
    rng = np.random.default_rng(config.seed)
    embedded = head.apply_to(features)
    a, b = rng.integers(len(embedded), size=(2, 1000))
    typical = float(np.median(np.linalg.norm(embedded[a] - embedded[b], axis=1)))
    head.scale(config.margin / max(typical, 1e-9))
