"""The 19 Cityscapes training classes by name, their colours, and other label sets mapped to them.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vpr.simulation.labels import Label

CLASS_NAMES = tuple(label.name.lower().replace("_", " ") for label in Label)
CLASS_COUNT = len(CLASS_NAMES)
UNLABELLED = 255  # in label images: not judged and not learnt from

# RGB, as the Cityscapes authors draw them
CLASS_COLOURS = np.array(
    [
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ],
    np.uint8,
)  # fmt: skip

# torchvision's segmentation weights know the 21 Pascal VOC classes: background, aeroplane, ...
VOC_CLASS_COUNT = 21
VOC_TO_CITYSCAPES = {
    2: Label.BICYCLE,
    6: Label.BUS,
    7: Label.CAR,
    14: Label.MOTORCYCLE,
    15: Label.PERSON,
    19: Label.TRAIN,
}
VOC_BACKGROUND = 0
VOC_BACKGROUND_CLASS = Label.BUILDING  # the set has no word for anything that stands still


class UnknownClassError(ValueError):
    """A class name that is none of the 19; lists them."""


def class_indices(names: Sequence[str]) -> NDArray[np.intp]:
    """Train ids of class names, each once, ascending.

    Raises:
        UnknownClassError: no name at all, or one that is not a Cityscapes class.
    """
    unknown = [name for name in names if name not in CLASS_NAMES]
    if unknown or not names:
        wrong = f"unknown class '{unknown[0]}'" if unknown else "no class is named"
        raise UnknownClassError(f"{wrong}; known are: {', '.join(CLASS_NAMES)}")
    return np.array(sorted({CLASS_NAMES.index(name) for name in names}), np.intp)
