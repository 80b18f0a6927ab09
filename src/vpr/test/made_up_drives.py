"""Small dataset folders: drives along one street of made-up facades in changing light."""

from pathlib import Path

import cv2
import numpy as np
import pymap3d

from vpr.config import EmbeddingConfig, FineTuningConfig
from vpr.records import GpsFix
from vpr.supervision.dataset import DatasetWriter, LabelledKeyframe

ORIGIN = GpsFix(48.0, 9.0, 300.0)
PLACES = 24
SPACING = 6.0  # m between places


SHADES = np.random.default_rng(99).normal(0.0, 1.0, (6, 6, 8, 3))  # what light adds to any view
SHADE, GRAIN = 17.0, 10.0  # grey levels


def facade(street, place, drive):
    """What is seen at a place: its own pattern under the shades of the moment, with noise."""
    pattern = np.random.default_rng([street, place]).uniform(20, 235, (6, 8, 3))
    moment = np.random.default_rng([street, place, drive])
    pattern += SHADE * np.tensordot(moment.normal(size=len(SHADES)), SHADES, 1)
    view = cv2.resize(pattern, (64, 48), interpolation=cv2.INTER_NEAREST)
    return np.clip(view + moment.normal(0, GRAIN, view.shape), 0, 255).astype(np.uint8)


def write_drive(folder, street=0, drives=(0,), places=PLACES, origin=ORIGIN, spacing=SPACING):
    """One session a drive along the street; returns the folder."""
    folder = Path(folder)
    writer = DatasetWriter(folder, ".png", 95)
    reference = origin.latitude, origin.longitude, origin.altitude
    for session, drive in enumerate(drives):
        rng = np.random.default_rng([street, 7, drive])
        for place in range(places):
            east, north = spacing * place + rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)
            geodetic = pymap3d.enu2geodetic(east, north, 0.0, *reference)
            keyframe = LabelledKeyframe(
                session=session,
                stamp_ns=(1 + place) * 10**9,
                fix=GpsFix(*(float(value) for value in geodetic)),
                position=np.array([east, north, 0.0]),
                heading=0.0,
                heading_source="fixes",
                image=facade(street, place, drive),
            )
            writer.add(keyframe, origin)
    return folder


def small_embedding(**changes):
    """The shipped descriptor on the images' own size."""
    values = {"image_width": 64, "image_height": 48, "device": "cpu", "runtime": "pytorch"}
    return EmbeddingConfig.from_file(**(values | changes))


def small_training(**changes):
    """A training that takes a second."""
    values = {
        "epochs": 3,
        "epoch_positives": 32,
        "batch_positives": 16,
        "negative_pool": 16,
        "embedding_dimension": 32,
        "learning_rate": 3e-4,
        "min_positives": 10,
        "exclude_recent_keyframes": 3,
        "same_place_distance": 3.0,
        "seen_distance": 8.0,
        "snapshots": 0,
        "device": "cpu",
    }
    return FineTuningConfig.from_file(**(values | changes))
