from dataclasses import replace

import cv2
import numpy as np

from vpr.evaluation import nordland
from vpr.evaluation.sequences import Comparison, evaluate_method
from vpr.evaluation.traverses import Tolerance

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
    monkeypatch.setattr(nordland, "train_sequence", None)  # all is kept: nothing is done again
    monkeypatch.setattr(nordland.FamilyMember, "evaluate", None)
    assert nordland.nordland_table(tmp_path, tmp_path / "out", epochs=1) == table
    methods = table.by_method()
    single = {each.tested: each.row for each in methods["single"]}
    assert single[":30"].queries == 30
    assert single["34:"].queries == 29  # one of 30 is a tunnel
    assert single[":30"].recalls[0] > 0.9
    for name in ("seqmatch loss / seqmatch mining, sequence", "seqnet S2", "hvpr"):
        pairs = {(each.trained, each.tested) for each in methods[name]}
        assert pairs == {(":30", "34:"), ("34:", ":30")}
    assert table.picture.stat().st_size > 1000


def test_standing_frames_have_the_answer_of_the_one_they_came_to_stand_at():
    walk = np.random.default_rng(1).standard_normal((12, 32)).astype(np.float32)
    walk /= np.linalg.norm(walk, axis=1, keepdims=True)
    stood = np.repeat(np.arange(12), [4, *[1] * 11])  # three frames more at the first place
    right = [frozenset([int(place)]) for place in stood]
    compared = Comparison(walk, walk, right, Tolerance(0.0, "frames"), answers=stood)
    row = evaluate_method(compared, "sequence_matching", 3)
    assert (row.queries, row.recalls[0]) == (15, 1.0)
    elsewhere = replace(compared, answers=np.maximum(stood - 1, 0))
    assert evaluate_method(elsewhere, "sequence_matching", 3).recalls[0] == 4 / 15
