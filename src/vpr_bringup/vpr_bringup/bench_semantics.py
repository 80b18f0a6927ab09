"""Benchmark rows of semantics: accuracy of the segmenter, what attention gains, what it costs."""

from __future__ import annotations

from vpr.evaluation.attention import attention_rows
from vpr.evaluation.segmentation import segmentation_rows
from vpr.evaluation.segmentation_latency import mask_latency, overhead_on_gpu

UNSEEN_TOWNS = range(9000, 9005)
SOURCE = "semantic_mask"


def semantics_rows() -> list[dict[str, str]]:
    """Rows with the keys ``what``, ``ours``, ``peer`` and ``wanted``."""
    rows = [_accuracy(), *_attention(), _latency()]
    on_gpu = overhead_on_gpu()
    if on_gpu is not None:
        rows.append(
            {
                "what": str(on_gpu["figure"]),
                "ours": f"p50 {on_gpu['p50 ms']:.1f} ms, adds {100 * on_gpu['added']:.0f} %",
                "peer": "-",
                "wanted": "< 15 %",
            }
        )
    return rows


def _accuracy() -> dict[str, str]:
    mean = segmentation_rows(UNSEEN_TOWNS)[-1]
    return {
        "what": "mIoU of the light segmenter, unseen towns",
        "ours": f"{mean['IoU']:.3f}",
        "peer": "-",
        "wanted": "printed",
    }


def _attention() -> list[dict[str, str]]:
    found = {str(row["method"]): row for row in attention_rows(UNSEEN_TOWNS, [SOURCE])}
    ours = found[f"{SOURCE} in the pooling"]
    shuffled = found[f"{SOURCE} in the pooling, shuffled"]
    return [
        {
            "what": f"{figure}, single image, {len(UNSEEN_TOWNS)} unseen towns, attention pooling",
            "ours": str(ours[figure]),
            "peer": f"{found['none'][figure]} none, {shuffled[figure]} shuffled masks",
            "wanted": "above both",
        }
        for figure in ("recall@1", "recall_at_100_precision")
    ]


def _latency() -> dict[str, str]:
    found = mask_latency()
    return {
        "what": str(found["figure"]),
        "ours": f"p50 {found['p50 ms']:.0f} ms, p95 {found['p95 ms']:.0f} ms",
        "peer": "-",
        "wanted": "p95 < 60 ms",
    }
