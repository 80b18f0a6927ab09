"""How long an attention mask takes, and how much of it is the network's forward pass alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vpr.config import SegmentationConfig
from vpr.images.attention import make_attention
from vpr.records import Image
from vpr.semantics.attention import SemanticMaskAttention
from vpr.semantics.segmenter import NetworkSegmenter

IMAGE_SIZE = (640, 480)  # px, as a camera gives it
WARM_UP, REPETITIONS = 10, 100


def mask_latency(params_file: Path | None = None) -> dict[str, object]:
    """Milliseconds from image to mask with the configured segmenter, p50 and p95."""
    attention = make_attention(SegmentationConfig.from_file(params_file, source="semantic_mask"))
    image = _picture()
    milliseconds = _timed(lambda: attention(image))
    return {"figure": "semantic mask, 640x480, light"} | _percentiles(milliseconds)


def overhead_on_gpu(params_file: Path | None = None) -> dict[str, object] | None:
    """DeepLabV3+ ResNet-101 under AMP: mask against forward pass alone; None without CUDA.

    The network's weights are random: how long it takes does not depend on them.
    """
    if not torch.cuda.is_available():
        return None
    config = SegmentationConfig.from_file(
        params_file,
        source="semantic_mask",
        segmenter="deeplabv3plus_resnet101",
        segmenter_weights="none",
        network_width=IMAGE_SIZE[0],
        device="cuda",
        mixed_precision=True,
    )
    segmenter = NetworkSegmenter(config)
    attention = SemanticMaskAttention(config, segmenter)
    image = _picture()
    batch = segmenter.batch(image)

    def forward() -> None:
        segmenter.logits(batch)
        torch.cuda.synchronize()

    alone, whole = _timed(forward), _timed(lambda: attention(image))
    added = float(np.median(whole) / np.median(alone) - 1.0)
    name = "DeepLabV3+ R101, AMP: mask, and what it adds to the forward pass"
    return {"figure": name} | _percentiles(whole) | {"added": added}


def _picture() -> Image:
    width, height = IMAGE_SIZE
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def _timed(work: Callable[[], object]) -> list[float]:
    milliseconds = []
    for repetition in range(WARM_UP + REPETITIONS):
        started = time.perf_counter()
        work()
        if repetition >= WARM_UP:
            milliseconds.append(1e3 * (time.perf_counter() - started))
    return milliseconds


def _percentiles(milliseconds: list[float]) -> dict[str, object]:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return {"p50 ms": float(p50), "p95 ms": float(p95)}
