from pathlib import Path

import cv2
import numpy as np
import pytest

from vpr.config import SequenceMatchingConfig
from vpr.evaluation.places import (
    EvaluationError,
    evaluate_places,
    image_files,
    match_descriptors,
    place_figures,
    read_ground_truth,
    read_image,
)

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def write_walk(folder, shift=0):
    """Eight views along a textured wall."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (24, 140, 3), np.uint8)
    wall = cv2.resize(noise, (1400, 240), interpolation=cv2.INTER_CUBIC)
    for index in range(8):
        left = 140 * index + shift
        cv2.imwrite(str(folder / f"frame{index + 3}.png"), wall[:, left : left + 320])


@pytest.fixture
def walks(tmp_path):
    write_walk(tmp_path / "reference")
    write_walk(tmp_path / "query", shift=12)
    truth = tmp_path / "truth.csv"
    truth.write_text("query,references\n" + "".join(f"{i},{i}\n" for i in range(8)))
    return tmp_path / "reference", tmp_path / "query", truth


def test_a_walk_is_recognised_in_another(walks):
    figures = evaluate_places(*walks, sequence_length=3).to_json()
    assert figures == {
        "recall@1": 1.0,
        "recall@5": 1.0,
        "recall@10": 1.0,
        "recall_at_100_precision": 1.0,
        "average_precision": 1.0,
    }


def test_images_come_in_natural_order(walks):
    names = [file.name for file in image_files(walks[0])]
    assert names == [f"frame{index}.png" for index in range(3, 11)]


def test_queries_are_not_matched_against_their_own_traverse():
    descriptors = np.eye(30, dtype=np.float32)
    config = SequenceMatchingConfig.from_file(sequence_length=1)
    matches = match_descriptors(descriptors[:12], np.repeat(descriptors[5:6], 20, axis=0), config)
    assert [found.candidates[0].reference_id for found in matches] == [5] * 20
    assert {found.searched for found in matches} == {12}


def test_no_query_at_the_start_is_left_out():
    walk = np.random.default_rng(0).normal(size=(30, 16)).astype(np.float32)
    walk /= np.linalg.norm(walk, axis=1, keepdims=True)
    matches = match_descriptors(walk, walk, SequenceMatchingConfig.from_file(sequence_length=11))
    figures = place_figures(matches, [frozenset({index}) for index in range(30)])
    assert len(matches) == 30
    assert figures.recall_at_1 == 1.0


def test_an_image_that_does_not_decode_is_named(walks):
    broken = walks[1] / "frame7.png"
    broken.write_bytes(broken.read_bytes()[:20])
    with pytest.raises(EvaluationError, match=r"cannot decode image .*frame7\.png"):
        read_image(broken)


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match="no folder"):
        image_files(tmp_path / "absent")
    with pytest.raises(EvaluationError, match="no image in"):
        image_files(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "lacks the columns"),
        ("query,references\n0,1\nx,2\n", "line 3"),
        ("query,references\n0,1 two\n", "line 2"),
        ("query,references\n4,1\n", "query 4 of 4 images"),
        ("query,references\n0,1 5\n", "reference 5 of 5 images"),
        ("query,references\n0\n,\n", "line 3"),
    ],
)
def test_a_broken_ground_truth_is_refused_with_its_line(tmp_path, text, message):
    file = tmp_path / "truth.csv"
    file.write_text(text)
    with pytest.raises(EvaluationError, match=message):
        read_ground_truth(file, queries=4, references=5)


def test_a_missing_ground_truth_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match="cannot read"):
        read_ground_truth(tmp_path / "absent.csv", 1, 1)


def test_queries_without_a_row_have_no_true_match(tmp_path):
    file = tmp_path / "truth.csv"
    file.write_text("query,references\n1,0 2\n2,\n")
    assert read_ground_truth(file, 3, 3) == [frozenset(), frozenset({0, 2}), frozenset()]


@pytest.mark.skipif(not (DATA / "corridor").is_dir(), reason="needs the corridor data set")
def test_the_shipped_configuration_recognises_the_corridor():
    corridor = DATA / "corridor"
    figures = evaluate_places(corridor / "ref", corridor / "query", corridor / "ground_truth.csv")
    assert figures.recall_at_1 >= 0.98
    assert figures.recall_at_100_precision >= 0.9
