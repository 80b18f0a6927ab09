"""Mapillary Street-Level Sequences, from a small folder in its format."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from vpr.supervision.overlap import field_of_view_overlap
from vpr.supervision.street_level_sequences import (
    REDUCED_TRAINING_CITIES,
    StreetLevelSequencesError,
    missing_images,
    read_traverse,
)

KEYS = ("a1", "b2", "pano3", "d4")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for city, east in (("zurich", 465_000.0), ("cph", 347_000.0)):
        for side in ("query", "database"):
            folder = tmp_path / "train_val" / city / side
            (folder / "images").mkdir(parents=True)
            raw = [",key,lon,lat,ca,captured_at,pano"]
            placed = [",key,easting,northing,unique_cluster,night,control_panel,view_direction"]
            for row, key in enumerate(f"{side}{key}" for key in KEYS):
                pano = "True" if "pano" in key else "False"
                raw.append(f"{row},{key},8.5,47.3,{90.0 * row},1500000000000,{pano}")
                placed.append(f"{row},{key},{east + 10 * row},5000000.0,{row},False,False,Forward")
                cv2.imwrite(str(folder / "images" / f"{key}.jpg"), np.zeros((12, 16, 3), np.uint8))
            (folder / "raw.csv").write_text("\n".join(raw) + "\n")
            (folder / "postprocessed.csv").write_text("\n".join(placed) + "\n")
    return tmp_path


def test_images_positions_and_headings_are_read_without_panoramas(root: Path) -> None:
    traverse = read_traverse(root, ["zurich", "cph"], "query")
    assert [path.stem for path in traverse.files] == ["querya1", "queryb2", "queryd4"] * 2
    assert traverse.city == ("zurich",) * 3 + ("cph",) * 3
    np.testing.assert_allclose(traverse.viewpoints.positions[1], [465_010.0, 5_000_000.0])
    north, east, west = np.radians([90.0, 0.0, -180.0])
    np.testing.assert_allclose(traverse.viewpoints.headings[:3], [north, east, west])
    assert missing_images(traverse) == []


def test_its_viewpoints_give_graded_similarity(root: Path) -> None:
    sides = [read_traverse(root, ["zurich"], side).viewpoints for side in ("query", "database")]
    similarity = field_of_view_overlap(sides[0], sides[1], np.pi / 2, 50.0)
    np.testing.assert_allclose(np.diag(similarity), 1.0, atol=1e-3)
    assert similarity[0, 2] < 0.2


def test_missing_images_are_listed(root: Path) -> None:
    traverse = read_traverse(root, ["cph"], "database")
    traverse.files[0].unlink()
    assert missing_images(traverse) == [traverse.files[0]]


def test_an_unknown_city_is_refused_listing_those_there(root: Path) -> None:
    assert "amman" in REDUCED_TRAINING_CITIES
    with pytest.raises(StreetLevelSequencesError, match=r"no city 'amman'.*cph, zurich"):
        read_traverse(root, ["amman"], "query")


def test_damaged_tables_are_refused_with_the_place(root: Path) -> None:
    folder = root / "train_val" / "cph" / "query"
    table = (folder / "postprocessed.csv").read_text()
    (folder / "postprocessed.csv").write_text(table.replace("347010.0", "far"))
    with pytest.raises(StreetLevelSequencesError, match=r"postprocessed\.csv, line 3"):
        read_traverse(root, ["cph"], "query")
    (folder / "postprocessed.csv").write_text(table.replace("easting", "east"))
    with pytest.raises(StreetLevelSequencesError, match="column 'easting'"):
        read_traverse(root, ["cph"], "query")
    (folder / "raw.csv").unlink()
    with pytest.raises(StreetLevelSequencesError, match=r"cannot read .*raw\.csv"):
        read_traverse(root, ["cph"], "query")
