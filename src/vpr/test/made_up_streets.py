"""A small folder in the format of Mapillary Street-Level Sequences."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

KEYS = ("a1", "b2", "pano3", "d4")
SIZE = (64, 48)  # px
SPACING = 10.0  # m, to the east
RAW = ",key,lon,lat,ca,captured_at,pano"
PLACED = ",key,easting,northing,unique_cluster,night,control_panel,view_direction"


def write_cities(root: Path, cities: Sequence[str]) -> None:
    """Each city with four places, the third a panorama, each looking 90 degrees further round."""
    for number, city in enumerate(cities):
        for side in ("query", "database"):
            folder = root / "train_val" / city / side
            (folder / "images").mkdir(parents=True)
            raw, placed = [RAW], [PLACED]
            for row, key in enumerate(f"{side}{key}" for key in KEYS):
                east = 500_000.0 + 1_000.0 * number + SPACING * row
                raw.append(f"{row},{key},8.5,47.3,{90.0 * row},1500000000000,{'pano' in key}")
                placed.append(f"{row},{key},{east},5000000.0,{row},False,False,Forward")
                picture = np.random.default_rng(row).integers(0, 255, (6, 8, 3), np.uint8)
                cv2.imwrite(str(folder / "images" / f"{key}.jpg"), cv2.resize(picture, SIZE))
            (folder / "raw.csv").write_text("\n".join(raw) + "\n")
            (folder / "postprocessed.csv").write_text("\n".join(placed) + "\n")
