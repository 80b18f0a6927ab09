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


def test_what_is_learned_on_a_stretch_is_tried_on_the_next(tmp_path, monkeypatch):
    for name, value in {
        "STRETCHES": (":30", "34:"), "LENGTH": 3, "LENGTHS": (1, 3), "SHORTLISTER_WINDOW": 2
    }.items():  # fmt: skip
        monkeypatch.setattr(nordland, name, value)
    line(tmp_path / "summer", 1.0, 0)
    line(tmp_path / "winter", 0.6, 30)
    told = []
    table = nordland.nordland_table(tmp_path, tmp_path / "out", told.append, epochs=1)
    assert told == table.rows
    methods = table.by_method()
    single = {each.tested: each.row for each in methods["single"]}
    assert single[":30"].queries == 30
    assert single["34:"].queries == 29  # one of 30 is a tunnel
    assert single[":30"].recalls[0] > 0.9
    for name in ("seqmatch loss / seqmatch mining, sequence", "seqnet S2", "hvpr"):
        pairs = {(each.trained, each.tested) for each in methods[name]}
        assert pairs == {(":30", "34:"), ("34:", ":30")}
    assert table.picture.stat().st_size > 1000


def test_gain_is_paired_by_town():
    first = DayNightRow("single", "single", (0.5, 0.7), (0.2, 0.2))
    better = DayNightRow("seqmatch", "seqmatch", (0.6, 0.9), (0.2, 0.2))
    assert better.gain_over(first) == pytest.approx((0.15, 0.05))
