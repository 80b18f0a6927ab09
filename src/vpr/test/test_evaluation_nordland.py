import cv2
import numpy as np
import pytest

from vpr.evaluation import nordland
from vpr.evaluation.day_night import DayNightRow

TUNNEL = 50  # a frame of the line, dark in winter


def line(folder, gain, offset):
    folder.mkdir()
    generator = np.random.default_rng(5)
    for frame in range(64):
        image = np.kron(generator.integers(40, 200, (4, 8), np.uint8), np.ones((8, 8), np.uint8))
        seen = np.zeros_like(image) if frame == TUNNEL and gain < 1 else image * gain + offset
        cv2.imwrite(str(folder / f"images-{frame:05d}.png"), seen.astype(np.uint8))


def test_table_is_of_the_stretch_that_was_not_trained_on(tmp_path, monkeypatch):
    for name, value in {
        "TRAINED": ":36", "TESTED": "40:", "LENGTH": 3, "LENGTHS": (1, 3), "SHORTLISTER_WINDOW": 2
    }.items():  # fmt: skip
        monkeypatch.setattr(nordland, name, value)
    line(tmp_path / "summer", 1.0, 0)
    line(tmp_path / "winter", 0.6, 30)
    told = []
    table = nordland.nordland_table(tmp_path, tmp_path / "out", told.append, epochs=1)
    assert told == table.rows
    assert {row.queries for row in table.rows} == {23}  # 24 frames, one of them a tunnel
    assert "seqmatch loss / seqmatch mining, sequence" in {row.method for row in table.rows}
    assert {"seqnet S2", "hvpr", "single"} <= {row.method for row in table.rows}
    single = next(row for row in table.rows if row.method == "single")
    assert single.recalls[0] > 0.9
    assert table.picture.stat().st_size > 1000


def test_gain_is_paired_by_town():
    first = DayNightRow("single", "single", (0.5, 0.7), (0.2, 0.2))
    better = DayNightRow("seqmatch", "seqmatch", (0.6, 0.9), (0.2, 0.2))
    assert better.gain_over(first) == pytest.approx((0.15, 0.05))
