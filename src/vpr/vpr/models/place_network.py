"""A place-recognition network with semantics brought into it in one of several ways.

"Exploring the Addition of Attention Mechanisms guided by Semantic Segmentation in Place
Recognition", section III-C and Fig. 1, and two ways more in which nothing is erased from the image.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Never

import torch
from torch import Tensor, nn
from torch.nn import functional

from vpr.models.attention_head import AttentionHead
from vpr.models.backbone import Backbone
from vpr.models.inflation import inflate_first_convolution
from vpr.models.pooling import gem_pool
from vpr.semantics.classes import CLASS_COUNT


class Integration(StrEnum):
    """How semantics enter the network."""

    NONE = "none"
    MULTIPLIED = "multiplied"  # the image times the mask, pixel by pixel
    MASK_CHANNEL = "mask_channel"  # RGB and the mask, 4 channels
    ACTIVATION_CHANNELS = "activation_channels"  # RGB and all activations, 22 channels
    POOLING = "pooling"  # the mask as weights of the pooling
    LEARNED = "learned"  # the same with a head's map instead of the mask

    @classmethod
    def _missing_(cls, value: object) -> Never:
        raise ValueError(f"unknown integration '{value}': {', '.join(cls)}")


USES_ACTIVATIONS = (Integration.ACTIVATION_CHANNELS, Integration.LEARNED)
EXTRA_CHANNELS = {Integration.MASK_CHANNEL: 1, Integration.ACTIVATION_CHANNELS: CLASS_COUNT}


class PlaceNetwork(nn.Module):
    """Backbone, semantics and GeM pooling; descriptors (B, C) of unit length.

    Args:
        backbone: with RGB input; its first convolution is inflated where channels are added.
        gem_p: exponent of the pooling (Leyva-Vallina et al. learn it from 3; it is kept there).
    """

    def __init__(self, backbone: Backbone, integration: Integration, gem_p: float = 3.0) -> None:
        super().__init__()
        self.network = backbone.network
        self.integration = integration
        self.gem_p = gem_p
        self._features = backbone.features
        extra = EXTRA_CHANNELS.get(integration, 0)
        if extra:
            inflate_first_convolution(self.network, extra)
        self.head = AttentionHead() if integration == Integration.LEARNED else None
        self.register_buffer("_shift", torch.tensor(backbone.mean).view(1, 3, 1, 1) * 255.0)
        self.register_buffer("_scale", torch.tensor(backbone.std).view(1, 3, 1, 1) * 255.0)

    def forward(self, rgb: Tensor, mask: Tensor, activations: Tensor) -> Tensor:
        """Describe images.

        Args:
            rgb: (B, 3, H, W) in 0..255.
            mask: (B, 1, H, W) in 0..1.
            activations: (B, 19, H, W) in 0..1.
        """
        if self.integration == Integration.MULTIPLIED:
            rgb = rgb * mask
        x = (rgb - self.get_buffer("_shift")) / self.get_buffer("_scale")
        if self.integration == Integration.MASK_CHANNEL:
            x = torch.cat([x, 2.0 * mask - 1.0], dim=1)
        elif self.integration == Integration.ACTIVATION_CHANNELS:
            x = torch.cat([x, 2.0 * activations - 1.0], dim=1)
        features = self._features(x)
        return functional.normalize(
            gem_pool(features, self.gem_p, (1, 1), self._weights(mask, activations))
        )

    def _weights(self, mask: Tensor, activations: Tensor) -> Tensor | None:
        if self.integration == Integration.POOLING:
            return mask
        return None if self.head is None else self.head(activations)
