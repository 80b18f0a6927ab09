from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vpr.evaluation.pictures import (
    REJECTED,
    VERIFIED,
    ImagePair,
    draw_attention,
    draw_latency,
    draw_pairs,
    draw_precision_recall,
    draw_similarity,
    draw_trajectory,
)

LOOP = np.column_stack(
    [np.cos(np.linspace(0, 2 * np.pi, 60)), np.sin(np.linspace(0, 2 * np.pi, 60))]
)


def pixels_of(file: Path, colour: str) -> int:
    """How many pixels of a PNG have exactly this colour."""
    picture = cv2.imread(str(file))
    assert picture is not None
    bgr = [int(colour[i : i + 2], 16) for i in (5, 3, 1)]
    return int((picture == bgr).all(axis=2).sum())


def view(brightness: int) -> NDArray[np.uint8]:
    return np.full((48, 64, 3), brightness, np.uint8)


def test_trajectory_marks_its_closures(tmp_path: Path) -> None:
    without = draw_trajectory(tmp_path / "a.png", 1.3 * LOOP, LOOP, truth=LOOP)
    closed = draw_trajectory(tmp_path / "b.png", 1.3 * LOOP, LOOP, LOOP, [(59, 0), (40, 10)])
    assert pixels_of(closed, VERIFIED) > pixels_of(without, VERIFIED)


def test_trajectory_takes_three_dimensions_and_standing_still(tmp_path: Path) -> None:
    still = np.zeros((1, 3))
    assert pixels_of(draw_trajectory(tmp_path / "still.png", still, still), "#ffffff") > 0


def test_trajectory_needs_positions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one position"):
        draw_trajectory(tmp_path / "none.png", np.empty((0, 2)), LOOP)
    assert not list(tmp_path.iterdir())


def test_similarity_marks_verdicts(tmp_path: Path) -> None:
    similarity = np.tril(np.linspace(0, 1, 900).reshape(30, 30))
    similarity[np.triu_indices(30)] = np.nan
    file = draw_similarity(tmp_path / "s.png", similarity, [(20, 3), (21, 4)], [(25, 10)])
    assert pixels_of(file, VERIFIED) > 0
    assert pixels_of(file, REJECTED) > 0


def test_similarity_of_nothing_compared(tmp_path: Path) -> None:
    file = draw_similarity(tmp_path / "s.png", np.full((3, 3), np.nan))
    assert cv2.imread(str(file)) is not None


def test_pairs_are_framed_by_verdict(tmp_path: Path) -> None:
    points = np.array([[10.0, 10.0], [40.0, 30.0]])
    good = ImagePair(view(90), view(120), True, "120 inliers", points, points)
    bad = ImagePair(view(90)[:, :, 0], view(30), False, "$too few$ of them, " * 6)
    only_good = draw_pairs(tmp_path / "good.png", [good])
    both = draw_pairs(tmp_path / "both.png", [good, bad, good, bad])
    assert pixels_of(only_good, VERIFIED) > 0
    assert pixels_of(only_good, REJECTED) == 0
    assert pixels_of(both, REJECTED) > 0


def test_sheets_need_something_to_show(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        draw_pairs(tmp_path / "pairs.png", [])
    with pytest.raises(ValueError, match="at least one view"):
        draw_attention(tmp_path / "attention.png", [])


def test_attention_is_stretched_over_its_image(tmp_path: Path) -> None:
    attention = np.zeros((6, 8), np.uint8)
    attention[:, 4:] = 255
    file = draw_attention(tmp_path / "attention.png", [(view(100), attention)])
    picture = cv2.imread(str(file))
    assert picture is not None
    overlay = picture[3 * picture.shape[0] // 4]
    left, right = overlay[len(overlay) // 4], overlay[3 * len(overlay) // 4]
    assert left[0] > left[2]  # cold where there is none
    assert right[2] > right[0]  # hot where there is much


def test_pictures_are_deterministic_whole_and_alone(tmp_path: Path) -> None:
    curves = {"sequence": ([0.0, 1.0], [1.0, 0.9])}
    latency = {"embedding": {"p50": 20.0, "p95": 30.0}, "end_to_end": {"p50": 40.0, "p95": 90.0}}
    first = [
        draw_precision_recall(tmp_path / "new folder" / "pr.png", curves).read_bytes(),
        draw_latency(tmp_path / "new folder" / "latency.png", latency).read_bytes(),
    ]
    again = [
        draw_precision_recall(tmp_path / "new folder" / "pr.png", curves).read_bytes(),
        draw_latency(tmp_path / "new folder" / "latency.png", latency).read_bytes(),
    ]
    assert first == again
    assert sorted(f.name for f in (tmp_path / "new folder").iterdir()) == ["latency.png", "pr.png"]
