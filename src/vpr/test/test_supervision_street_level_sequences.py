"""Mapillary Street-Level Sequences, from a small folder in its format."""

from pathlib import Path

import numpy as np
import pytest
from made_up_streets import write_cities

from vpr.supervision.overlap import field_of_view_overlap
from vpr.supervision.street_level_sequences import (
    REDUCED_TRAINING_CITIES,
    StreetLevelSequencesError,
    missing_images,
    read_traverse,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_cities(tmp_path, ("zurich", "cph"))
    return tmp_path


def test_images_positions_and_headings_are_read_without_panoramas(root: Path) -> None:
    traverse = read_traverse(root, ["zurich", "cph"], "query")
    assert [path.stem for path in traverse.files] == ["querya1", "queryb2", "queryd4"] * 2
    assert traverse.city == ("zurich",) * 3 + ("cph",) * 3
    np.testing.assert_allclose(traverse.viewpoints.positions[1], [500_010.0, 5_000_000.0])
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
    (folder / "postprocessed.csv").write_text(table.replace("501010.0", "far"))
    with pytest.raises(StreetLevelSequencesError, match=r"postprocessed\.csv, line 3"):
        read_traverse(root, ["cph"], "query")
    (folder / "postprocessed.csv").write_text(table.replace("easting", "east"))
    with pytest.raises(StreetLevelSequencesError, match="column 'easting'"):
        read_traverse(root, ["cph"], "query")
    (folder / "raw.csv").unlink()
    with pytest.raises(StreetLevelSequencesError, match=r"cannot read .*raw\.csv"):
        read_traverse(root, ["cph"], "query")
