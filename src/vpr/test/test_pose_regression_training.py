"""Training: it learns, goes on after a kill to the same result, and refuses what it cannot use."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_room import CONFIG, STEP, room

from vpr.learning.errors import TrainingError
from vpr.models.descriptor_model import DescriptorModelError
from vpr.models.device import DeviceError
from vpr.models.efficientnet_lite0 import embedded_weights_file
from vpr.models.vlocnet import VLocNet
from vpr.models.weights import read_state_dict
from vpr.pose_regression import training
from vpr.pose_regression.model import PoseModel, PoseModelError
from vpr.pose_regression.prediction import (
    figures,
    mean_intersection_over_union,
    pose_errors,
    predict,
)
from vpr.pose_regression.training import (
    CHECKPOINT,
    EMBEDDED,
    LOG,
    MODEL,
    VLocNetTrainingConfig,
    learn,
    train,
)

torch.set_num_threads(1)  # two would wait for each other on a busy machine

SHORT = VLocNetTrainingConfig(single_steps=3, steps=6, batch=2, log_every=2, checkpoint_every=4)


class Killed(Exception):
    """The process ended here."""


def test_it_learns_where_it_is_and_how_far_it_moved() -> None:
    frames = room()
    config = VLocNetTrainingConfig(
        single_steps=0, steps=40, schedule="joint", batch=8, learning_rate=5e-3
    )
    model = train(frames, CONFIG, config)
    found = figures(predict(model.network, frames), frames)
    assert found["median_translation_m"] < 0.4  # of a way of 4 m
    assert found["odometry_translation_m"] < 0.05
    assert found["mean_iou"] > 0.8
    metres, _ = pose_errors(predict(model.network, frames).poses, frames.poses)
    assert np.mean(metres < 3.0 * model.certainty.deviations.translation) > 0.85


def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    frames = room(20)
    whole = train(frames, CONFIG, SHORT, tmp_path / "whole")

    def kill(row: dict[str, float]) -> None:
        if row["step"] == 6.0:
            raise Killed

    with pytest.raises(Killed):
        train(frames, CONFIG, SHORT, tmp_path / "killed", log=kill)
    assert not (tmp_path / "killed" / MODEL).exists()
    resumed = train(frames, CONFIG, SHORT, tmp_path / "killed")
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
    assert whole.certainty == resumed.certainty
    logs = [list(csv.DictReader((tmp_path / run / LOG).open())) for run in ("whole", "killed")]
    assert logs[0] == logs[1]
    assert {"step", "rate", "loss", "loc", "vo", "seg", "depth"} <= set(logs[0][-1])


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(room(20), CONFIG, SHORT, tmp_path)
    with pytest.raises(TrainingError, match="other drives or values"):
        train(room(20, seed=1), CONFIG, SHORT, tmp_path)
    train(room(20, seed=1), CONFIG, SHORT, tmp_path, fresh=True)
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(DescriptorModelError, match="cannot read"):
        train(room(20), CONFIG, SHORT, tmp_path)


def test_accumulated_batches_are_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[int]] = []
    batch = training._Data.batch

    def counted(data: training._Data, seed: list[int], device: torch.device) -> object:
        drawn.append(seed)
        return batch(data, seed, device)

    monkeypatch.setattr(training._Data, "batch", counted)
    rows: list[dict[str, float]] = []
    config = SHORT.model_copy(update={"single_steps": 0, "steps": 2, "accumulate": 3})
    train(room(20), CONFIG, config, log=rows.append)
    assert drawn == [[0, step, part] for step in (0, 1) for part in (0, 1, 2)]
    assert [row["step"] for row in rows] == [2.0]


def test_a_batch_has_runs_of_consecutive_frames() -> None:
    frames = room(20)
    frames = replace(frames, follows=frames.follows & (np.arange(20) != 10))
    data = training._Data(frames, SHORT.model_copy(update={"window": 4, "batch": 50}))
    images, truths = data.batch([0], torch.device("cpu"))
    along = torch.stack([truth.position[:, 0] for truth in truths])
    assert len(images) == 4
    torch.testing.assert_close(along.diff(dim=0), torch.full((3, 50), STEP))
    assert not bool(((along[0] < 10 * STEP - 1e-3) & (along[-1] > 10 * STEP - 1e-3)).any())


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_statistics_of_the_batch_are_taken_for_a_share_of_the_steps(share: float) -> None:
    config = SHORT.model_copy(update={"single_steps": 0, "steps": 8, "batch_statistics": share})
    learnt, _ = learn(room(20), CONFIG.model_copy(update={"tasks": ("pose",)}), config)
    forward_passes = int(learnt.trunk.res1.bn1.num_batches_tracked)
    assert forward_passes == share * 8 * config.window


def test_mixed_precision_trains_too() -> None:
    model = train(room(20), CONFIG, SHORT.model_copy(update={"mixed_precision": "on"}))
    assert all(bool(torch.isfinite(p).all()) for p in model.network.parameters())


@pytest.mark.parametrize("fusion", ["adaptive", "concatenation"])
def test_single_tasks_and_plain_losses_train(fusion: str) -> None:
    network = CONFIG.model_copy(update={"tasks": ("pose",), "fusion": fusion})
    config = SHORT.model_copy(update={"geometric_consistency": False, "schedule": "joint"})
    found = figures(predict(train(room(20), network, config).network, room(20)), room(20))
    assert "median_translation_m" in found
    assert "mean_iou" not in found
    assert "odometry_translation_m" not in found


@pytest.mark.parametrize("count", [0, 3, 4])
def test_frozen_blocks_stay_as_they_were_embedded(count: int) -> None:
    tasks = ("pose", "odometry")
    network = CONFIG.model_copy(update={"backbone": "efficientnet_lite0", "tasks": tasks})
    values = {"single_steps": 0, "steps": 2, "initial_weights": EMBEDDED, "turn": 5.0}
    embedded = read_state_dict(embedded_weights_file())
    config = SHORT.model_copy(update=values | {"frozen_blocks": count, "schedule": "joint"})
    learnt, _ = learn(room(10), network, config)
    assert learnt.pose is not None
    assert learnt.odometry is not None
    kept = {
        4: learnt.pose.res4.state_dict()["a._bn0.running_mean"],
        3: learnt.trunk.state_dict()["res3.a._bn0.running_mean"],
    }
    odometry = learnt.odometry.res4.state_dict()["a._expand_conv.weight"]
    given = {4: embedded["_blocks.5._bn0.running_mean"], 3: embedded["_blocks.3._bn0.running_mean"]}
    for block, tensor in kept.items():
        assert torch.equal(tensor, given[block]) == (block <= count)
    assert torch.equal(odometry, embedded["_blocks.5._expand_conv.weight"]) == (count == 4)


def test_what_cannot_be_learnt_from_is_refused() -> None:
    frames = room(20)
    unlabelled = replace(frames, labels=None)
    with pytest.raises(TrainingError, match="no labels"):
        train(unlabelled, CONFIG, SHORT)
    apart = replace(frames, follows=np.zeros(20, bool), labels=None)
    with pytest.raises(TrainingError, match="no 3 of them follow each other"):
        train(apart, CONFIG.model_copy(update={"tasks": ("pose",)}), SHORT)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="finds no GPU"):
            train(frames, CONFIG, SHORT.model_copy(update={"device": "cuda"}))
    wild = SHORT.model_copy(update={"learning_rate": 1e18})
    with pytest.raises(TrainingError, match="is not finite: lower learning_rate"):
        train(frames, CONFIG, wild)


def test_a_model_is_read_back_and_foreign_files_are_refused(tmp_path: Path) -> None:
    model = train(room(20), CONFIG, SHORT, tmp_path)
    read = PoseModel.load(tmp_path / MODEL)
    assert read.certainty == model.certainty
    np.testing.assert_array_equal(read.known, model.known)
    answers = [predict(m.network, room(20)).poses for m in (model, read)]
    np.testing.assert_array_equal(*answers)
    with pytest.raises(PoseModelError, match="is not a trained VLocNet"):
        PoseModel.load(tmp_path / CHECKPOINT)
    with pytest.raises(DescriptorModelError, match="cannot read"):
        PoseModel.load(tmp_path / "missing.safetensors")


def test_a_network_without_pose_is_kept_too(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"tasks": ("odometry", "segmentation")})
    train(room(20), config, SHORT, tmp_path)
    found = figures(predict(PoseModel.load(tmp_path / MODEL).network, room(20)), room(20))
    assert "median_translation_m" not in found
    assert "odometry_translation_m" in found


def test_frames_that_follow_nothing_are_first_frames() -> None:
    torch.manual_seed(0)
    network = VLocNet(CONFIG)
    frames = room(6)
    cut = frames.subset(np.array([True, True, False, True, True, True]))
    answers = predict(network, cut)
    has_motion = np.isfinite(answers.motions).all(axis=(1, 2))
    assert has_motion.tolist() == [False, True, False, True, True]
    alone = predict(network, frames.subset(np.arange(6) == 3))
    np.testing.assert_allclose(answers.poses[2], alone.poses[0], atol=1e-6)


def test_intersection_over_union_by_hand() -> None:
    truth = np.array([[[0, 0, 1, 1, 255]]], np.uint8)
    predicted = np.array([[[0, 1, 1, 2, 0]]], np.uint8)
    expected = (1 / 2 + 1 / 3) / 2
    assert mean_intersection_over_union(predicted, truth) == pytest.approx(expected)
