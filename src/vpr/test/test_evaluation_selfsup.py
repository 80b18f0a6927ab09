"""The figures of a trained descriptor, and learning on some data sets for another."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from made_up_drives import small_embedding, small_training, write_drive
from typer.testing import CliRunner

from vpr.cli import app
from vpr.config import SequenceMatchingConfig
from vpr.evaluation import leave_one_out
from vpr.evaluation.drifting_graph import close_loops
from vpr.evaluation.embedding_curves import epsilon_curves, neighbour_curves, separation
from vpr.evaluation.search_time import search_rows
from vpr.evaluation.selfsup import evaluate_selfsup
from vpr.learning.descriptor import TrainingData, train_descriptor
from vpr.learning.drives import Drives
from vpr.learning.errors import TrainingError
from vpr.models.calibration import ReducedMap
from vpr.supervision.kernel import Viewpoints

SEQUENCES = SequenceMatchingConfig.from_file()
PICTURES = {
    "fig2_supervision.png", "fig3_epochs.png", "fig4_tsne.png", "fig5_layers.png",
    "fig6_epsilon_nn.png", "fig7_k_nn.png", "fig8_separation.png", "fig9_pose_graph.png",
    "reliability.png",
}  # fmt: skip


def laps(repeats=2, count=60):
    """Keyframes of laps round a circle of 60 m, and embeddings that know the place."""
    turn = 2 * np.pi * np.arange(repeats * count) / count
    positions = 60.0 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    drives = Drives(
        images=tuple(Path(f"{row}.png") for row in range(len(turn))),
        viewpoints=Viewpoints(positions, turn + np.pi / 2),
        stamps_ns=(1 + np.arange(len(turn))) * 10**9,
        drive=np.zeros(len(turn), int),
        names=("laps",),
    )
    noise = np.random.default_rng(0).normal(0, 0.01, positions.shape)
    return drives, (positions / 60.0 + noise).astype(np.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of one street, and two drives along another that it has not seen."""
    root = tmp_path_factory.mktemp("selfsup")
    data = TrainingData(
        [write_drive(root / "train", drives=(0, 1, 2))],
        [write_drive(root / "validation", drives=(3, 4, 5, 6), places=40)],
    )
    out = root / "street.safetensors"
    made = train_descriptor(
        data, out, small_embedding(), small_training(snapshots=3), SEQUENCES, progress=False
    )
    assert made.model.calibration is not None, made.notes
    held_out = write_drive(root / "held_out", street=2, drives=(0, 1))
    lap = write_drive(root / "lap", street=2, drives=(0,))
    return out, [held_out, lap]


def params_file(folder):
    """The values of the made-up drives as a parameter file."""
    file = folder / "small.yaml"
    sections = {"embedding": small_embedding(), "fine_tuning": small_training()}
    document = {
        f"/**/{name}": {"ros__parameters": config.model_dump()} for name, config in sections.items()
    }
    file.write_text(yaml.safe_dump(document))
    return file


def test_one_command_makes_the_whole_set_of_figures(trained, tmp_path):
    model, folders = trained
    words = ["eval", "selfsup", "--model", model, "--out", tmp_path / "out"]
    for folder in folders:
        words += ["--data", folder]
    words += ["--params-file", params_file(tmp_path)]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == PICTURES | {"figures.json"}
    for name in PICTURES:
        assert cv2.imread(str(tmp_path / "out" / name)).std() > 1.0
    figures = json.loads((tmp_path / "out/figures.json").read_text())
    learned, base = figures["together"]["learned"], figures["together"]["backbone"]
    assert learned["queries"] == base["queries"] == 68  # not the first drive's first rows
    thresholds = figures["calibration"]["single images"]["thresholds"]
    assert [threshold["wanted_precision"] for threshold in thresholds] == [0.95, 0.99]
    assert {threshold["drives_judged"] for threshold in thresholds} == {3}


def test_drives_that_come_back_to_nothing_are_refused(trained, tmp_path):
    model, _ = trained
    lone = write_drive(tmp_path / "lone", street=4)
    with pytest.raises(TrainingError, match=r"no keyframe .* seen before"):
        evaluate_selfsup(
            [lone], model, tmp_path / "out", small_embedding(), small_training(), SEQUENCES
        )


def test_curves_of_a_perfect_embedding_are_perfect():
    drives, embeddings = laps()
    config = small_training(exclude_recent_keyframes=20)
    epsilon = epsilon_curves(embeddings, drives, 20.0, config)
    assert epsilon.precision[0] == 1.0
    assert epsilon.recall[-1] == 1.0
    assert (np.diff(epsilon.recall) >= 0).all()
    assert epsilon.precision[np.searchsorted(epsilon.recall, 0.9)] > 0.95
    nearest = neighbour_curves(embeddings, drives, 20.0, config)
    assert nearest.recall[0] == 1.0
    assert nearest.levels[0] == 1.0
    apart = separation(embeddings, drives, config)
    assert apart.positive.max() < apart.negative.min()
    assert apart.overlap == 0.0


@pytest.mark.parametrize("index", ["exact", "kd_tree", "graph"])
def test_loop_closures_take_the_drift_out_of_the_pose_graph(index):
    drives, embeddings = laps(repeats=3)
    config = small_training(exclude_recent_keyframes=20, index=index)
    plain = ReducedMap(distances=(0.0,), probabilities=(0.5,))
    stages = close_loops(embeddings, drives, np.zeros(len(drives)), plain, 0.1, config)
    assert [stage.share for stage in stages] == [0.25, 0.5, 0.75, 1.0]
    assert len(stages[0].closures) == 0
    assert len(stages[-1].closures) > 50
    measured, optimised = stages[-1].errors
    assert optimised < 0.6 * measured


def test_each_index_is_timed_and_the_exact_ones_find_all():
    rows = search_rows(places=(300,), dimension=32)
    assert [row["index"] for row in rows] == ["exact", "kd_tree", "graph"]
    assert [row["found"] for row in rows[:2]] == [1.0, 1.0]
    assert [row["found_within"] for row in rows[:2]] == [1.0, 1.0]
    assert rows[2]["found"] > 0.9
    assert rows[2]["found_within"] > 0.9


def test_one_data_set_is_left_out_of_what_is_learnt(tmp_path):
    """Descriptors made up of a place and of a light; the light is what can be unlearnt."""
    kinds = tuple(leave_one_out.RealSet(name, "a", "b", 9.0, 0) for name in ("one", "two", "three"))
    for kind in kinds:
        for traverse in ("a", "b"):
            folder = tmp_path / "data" / kind.name / traverse
            folder.mkdir(parents=True)
            for i in range(60):
                cv2.imwrite(str(folder / f"{i:02d}.png"), np.zeros((2, 2), np.uint8))
    lights = np.random.default_rng(0).standard_normal((4, 32))

    def describe(files):
        place = np.random.default_rng([ord(c) for c in files[0].parent.parent.name])
        rows = place.standard_normal((len(files), 32))
        light = np.random.default_rng([*map(ord, str(files[0].parent)[-3:])])
        rows += 3.0 * light.standard_normal((len(files), 4)) @ lights
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    config = small_training(
        epochs=30, epoch_positives=128, min_positives=10, seen_distance=20.0,
        exclude_recent_keyframes=0, learning_rate=3e-3,
    )  # fmt: skip
    rows = leave_one_out.leave_one_out_rows(tmp_path / "data", tmp_path, config, kinds, describe)
    assert [row["data set"] for row in rows] == ["one", "two", "three"]
    assert all(row["recall@1 after"] > row["recall@1 before"] + 0.1 for row in rows)
