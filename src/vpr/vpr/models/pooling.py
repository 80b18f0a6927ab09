"""From a feature map to a vector."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

SMALLEST_ACTIVATION = 1e-6


def gem_pool(
    features: Tensor, p: float, grid: tuple[int, int], attention: Tensor | None = None
) -> Tensor:
    """Generalised-mean pooling over each cell of a coarse grid.

    Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019; with
    attention each position is weighted by it. One cell forgets where things are in the view;
    several keep its layout.

    Args:
        features: (B, C, h, w). With p > 1 negative values count as zero.
        p: exponent; 1 averages, a large one takes the maximum.
        grid: rows and columns of cells.
        attention: (B, 1, H, W), not negative; None weighs all positions alike.

    Returns:
        (B, C * rows * columns): ``(sum w x^p / sum w)^(1/p)`` of each cell.
    """
    powers = features if p == 1.0 else features.clamp(min=SMALLEST_ACTIVATION).pow(p)
    if attention is None:
        means = functional.adaptive_avg_pool2d(powers, grid)
    else:
        rows, columns = features.shape[-2:]
        weights = functional.adaptive_avg_pool2d(attention, (rows, columns))
        means = functional.adaptive_avg_pool2d(powers * weights, grid)
        means = means / functional.adaptive_avg_pool2d(weights, grid).clamp(min=SMALLEST_ACTIVATION)
    return (means if p == 1.0 else means.pow(1.0 / p)).flatten(1)
