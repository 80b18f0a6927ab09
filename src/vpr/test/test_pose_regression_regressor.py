"""The network on a stream: first frames, jumps in time, other cameras, other worlds."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from made_up_room import CAMERA, CONFIG, STEP, room
from typer.testing import CliRunner

from vpr.cli import app
from vpr.config import PoseRegressionConfig
from vpr.evaluation.kept_rows import KeptRows
from vpr.evaluation.pose_regression import (
    ABLATIONS,
    Drives,
    ablation_rows,
    ablation_summary,
    comparison_rows,
    revisits,
    trust_figures,
)
from vpr.geometry import pose_from_quaternion
from vpr.learning.errors import TrainingError
from vpr.pose_regression.activation_maps import activation_maps, draw_activation_maps
from vpr.pose_regression.frames import FramesError
from vpr.pose_regression.model import PoseModel
from vpr.pose_regression.prediction import Answers, predict
from vpr.pose_regression.regressor import FrameRefused, PoseRegressor
from vpr.pose_regression.training import MODEL, VLocNetTrainingConfig, train
from vpr.records import CameraModel, Image

torch.set_num_threads(1)  # two would wait for each other on a busy machine

SECOND = 1_000_000_000
SHORT = VLocNetTrainingConfig(single_steps=3, steps=6, batch=2)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(room(20), CONFIG, SHORT, out)
    model = PoseModel.load(out / MODEL)
    generous = model.certainty.model_copy(update={"familiar": 0.5})
    replace(model, certainty=generous).save(out / MODEL)
    return out / MODEL


def regressor(model_file: Path, **values: object) -> PoseRegressor:
    return PoseRegressor(PoseRegressionConfig.from_file(pose_model=str(model_file), **values))


def picture(index: int) -> Image:
    return np.ascontiguousarray(room(20).images[index][..., ::-1])


def test_poses_are_those_of_base_link(model_file: Path) -> None:
    camera_in_base = [0.3, 0.0, 1.0, -0.5, 0.5, -0.5, 0.5]
    found = regressor(model_file, camera_in_base=camera_in_base).observe(0, picture(3), CAMERA)
    alone = predict(PoseModel.load(model_file).network, room(20).subset(np.arange(20) == 3))
    base_T_camera = pose_from_quaternion(camera_in_base[:3], camera_in_base[3:])
    assert found.pose is not None
    np.testing.assert_allclose(found.pose @ base_T_camera, alone.poses[0], atol=1e-6)
    assert found.labels is not None
    assert found.labels.shape == (32, 64)
    assert np.linalg.eigvalsh(found.covariance).min() > 0.0


def test_a_first_frame_has_no_motion_and_the_next_has(model_file: Path) -> None:
    stream = regressor(model_file)
    first = stream.observe(0, picture(3), None)
    assert first.motion is None
    assert "first frame" in first.remark
    second = stream.observe(SECOND // 10, picture(4), None)
    assert second.motion is not None
    assert second.remark == ""


def test_a_gap_and_a_jump_back_begin_anew(model_file: Path) -> None:
    stream = regressor(model_file)
    alone = stream.observe(100 * SECOND, picture(4), None)
    after_gap = stream.observe(200 * SECOND, picture(4), None)
    assert after_gap.motion is None
    assert "no image for 100.0 s" in after_gap.remark
    np.testing.assert_allclose(after_gap.pose, alone.pose, atol=1e-6)
    back = stream.observe(50 * SECOND, picture(4), None)
    assert back.motion is None
    assert "time jumped back by 150.0 s" in back.remark


def test_frames_out_of_order_are_refused_and_forgotten(model_file: Path) -> None:
    stream = regressor(model_file)
    stream.observe(2 * SECOND, picture(3), None)
    for late in (2 * SECOND, 2 * SECOND - 1):
        with pytest.raises(FrameRefused) as refused:
            stream.observe(late, picture(2), None)
        assert refused.value.reason == "out_of_order"
    assert stream.observe(2 * SECOND + SECOND // 10, picture(4), None).motion is not None


def test_another_camera_is_refused_with_its_numbers(model_file: Path) -> None:
    stream = regressor(model_file)
    wide = CameraModel(64, 32, np.array([[30.0, 0, 31.5], [0, 30.0, 15.5], [0, 0, 1]]))
    with pytest.raises(FrameRefused, match=r"fx / width 0.469 \(was 0.781\)") as refused:
        stream.observe(0, picture(3), wide)
    assert refused.value.reason == "other_camera"
    double = CameraModel(128, 64, np.array([[100.0, 0, 63.5], [0, 100.0, 31.5], [0, 0, 1]]))
    assert stream.observe(0, picture(3), double).pose is not None


def test_an_image_unlike_the_training_world_gets_no_pose(model_file: Path) -> None:
    model = PoseModel.load(model_file)
    strict = model.certainty.model_copy(update={"familiar": 1e-5})
    file = model_file.with_name("strict.safetensors")
    replace(model, certainty=strict).save(file)
    stream = regressor(file)
    noise = np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8)
    found = stream.observe(0, noise, None)
    assert found.pose is None
    assert "unlike the training world" in found.remark
    assert found.strangeness > 1e-5


def test_the_stranger_the_image_the_wider_the_covariance(model_file: Path) -> None:
    model = PoseModel.load(model_file)
    narrow = model.certainty.model_copy(update={"typical": 1e-4, "familiar": 2.0})
    file = model_file.with_name("narrow.safetensors")
    replace(model, certainty=narrow).save(file)
    noise = np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8)
    found = regressor(file).observe(0, noise, None)
    deviation = np.sqrt(found.covariance[0, 0]) / model.certainty.deviations.translation
    assert deviation == pytest.approx(found.strangeness / 1e-4)
    assert deviation > 1.0


def test_activation_maps_are_drawn(model_file: Path, tmp_path: Path) -> None:
    network = PoseModel.load(model_file).network
    maps = activation_maps(network, room(20).images[:2])
    assert maps.shape == (2, 32, 64)
    assert maps.dtype == np.uint8
    draw_activation_maps(network, room(20).images[:5], tmp_path / "maps.png")
    assert cv2.imread(str(tmp_path / "maps.png")).shape == (2 * 2 * 96, 4 * 192, 3)
    no_pose = CONFIG.model_copy(update={"tasks": ("odometry",)})
    blind = train(room(20), no_pose, SHORT).network
    with pytest.raises(ValueError, match="regresses no pose"):
        activation_maps(blind, room(20).images[:1])


def test_revisits_are_near_and_look_the_same_way() -> None:
    frames = room(20)
    learnt = frames.subset(np.arange(20) < 5)
    expected = STEP * np.maximum(np.arange(20) - 4, 0) <= 0.5 + 1e-9
    np.testing.assert_array_equal(revisits(frames, learnt), expected)


def test_an_ablation_has_a_row_a_variant_and_seed_and_goes_on(tmp_path: Path) -> None:
    short = SHORT.model_copy(update={"steps": 2})
    drives = Drives(room(20), room(8), room(10))
    told: list[dict[str, object]] = []
    kept = KeptRows(tmp_path / "rows.json")
    rows = ablation_rows(drives, [0, 1], CONFIG, short, tmp_path, told.append, kept)
    assert told == rows
    assert len(rows) == 8
    models = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/checkpoint.safetensors")}
    assert len(models) == 8
    assert ablation_rows(drives, [0, 1], CONFIG, short, tmp_path) == rows
    assert all(file.stat().st_mtime_ns == time for file, time in models.items())  # no step anew
    again = KeptRows(tmp_path / "rows.json")
    assert ablation_rows(drives, [0, 1], CONFIG, short, tmp_path / "empty", kept=again) == rows
    assert not (tmp_path / "empty").exists()  # rows that were kept are not trained again
    summary = ablation_summary(rows)
    assert [row["variant"] for row in summary] == list(ABLATIONS)
    assert all(row["seeds"] == 2 for row in summary)


def test_the_commands_train_and_judge(tmp_path: Path) -> None:
    from test_pose_regression_frames import write_scene

    write_scene(tmp_path / "scene", sequences=2, frames=10)
    data = ["--data", f"7scenes:{tmp_path / 'scene'}"]
    run = CliRunner()
    quick = ["--single-steps", "2", "--steps", "2", "--batch", "2"]
    done = run.invoke(app, ["train", "vlocnet", str(tmp_path / "run"), *data, *quick])
    assert done.exit_code == 0, done.output
    found = run.invoke(
        app,
        [
            "eval", "vlocnet", str(tmp_path / "run" / MODEL), *data, "--frames", "2:8",
            "--learnt-frames", ":", "--maps", str(tmp_path / "maps.png"),
            "--json", str(tmp_path / "figures.json"),
        ],
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "nearest keyframe" in (tmp_path / "figures.json").read_text()
    assert (tmp_path / "maps.png").is_file()


def test_the_commands_calibrate_on_other_drives(tmp_path: Path) -> None:
    from test_pose_regression_frames import write_scene

    write_scene(tmp_path / "scene", sequences=3, frames=6)
    data = ["--data", f"7scenes:{tmp_path / 'scene'}"]
    other = f"7scenes:{tmp_path / 'scene' / 'seq-03'}"
    values = ["--single-steps", "0", "--steps", "1", "--batch", "2", "--turn", "5"]
    lite0 = ["--backbone", "efficientnet_lite0", "--initial-weights", "embedded"]
    run, out = CliRunner(), tmp_path / "run"
    arguments = ["train", "vlocnet", str(out), *data, *values, *lite0, "--calibrate-on", other]
    done = run.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "by 6 frames of 1 drives not learnt from" in " ".join(done.output.split())
    assert PoseModel.load(out / MODEL).provenance["frames"] == "12"
    again = run.invoke(app, ["train", "vlocnet-certainty", str(out / MODEL), *data])
    assert again.exit_code == 0, again.output
    assert "by 12 frames of 2 drives" in " ".join(again.output.split())
    assert PoseModel.load(out / MODEL).certainty.drives == 2
    wrong = run.invoke(app, [*arguments[:3], *data, *values, "--initial-weights", "embedded"])
    assert wrong.exit_code == 2
    assert "only EfficientNet-Lite0 has embedded weights" in " ".join(wrong.output.split())


def test_frames_of_another_camera_do_not_calibrate(model_file: Path) -> None:
    wide = replace(room(6), camera=room(6).camera * np.array([0.5, 0.5, 1.0, 1.0]))
    with pytest.raises(FramesError, match=r"cannot calibrate: another camera .* fx / width 0.391"):
        PoseModel.load(model_file).calibrated_on(wide)
    with pytest.raises(TrainingError, match="cannot calibrate: another camera"):
        train(room(20), CONFIG, SHORT, others=wide)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "kitti:/nowhere"], "names no frames"),
        (["--data", "7scenes:/nowhere"], "is no 7-Scenes scene"),
        (["--data", "deeploc:/nowhere"], "cannot read"),
    ],
)
def test_wrong_data_is_one_sentence(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "vlocnet", str(tmp_path / "run"), *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="cannot read"):
        regressor(file)


def test_the_nearest_keyframe_stands_beside(model_file: Path) -> None:
    frames = room(10)
    truth = Answers(frames.poses, np.full_like(frames.poses, np.nan), None, np.zeros((10, 0)))
    rows = comparison_rows(truth, frames, frames.subset(np.arange(10) < 3))
    assert [(row["method"], row["on"], row["frames"]) for row in rows] == [
        ("VLocNet++", "revisits", 8), ("nearest keyframe", "revisits", 8),
        ("VLocNet++", "all", 10), ("nearest keyframe", "all", 10),
    ]  # fmt: skip
    assert rows[0]["share_5cm_5deg"] == 1.0
    assert 0.0 < float(str(rows[3]["median_translation_m"])) <= 0.7
    blind = replace(truth, poses=truth.motions)
    with pytest.raises(FramesError, match="regresses no pose"):
        comparison_rows(blind, frames, frames)


def test_what_the_model_says_of_its_certainty_is_judged(model_file: Path) -> None:
    model = PoseModel.load(model_file)
    answers = predict(model.network, room(20))
    judged = []
    for translation in (1e-6, 1e3):
        update = {"translation": translation}
        deviations = model.certainty.deviations.model_copy(update=update)
        certainty = model.certainty.model_copy(update={"deviations": deviations})
        judged.append(trust_figures(replace(model, certainty=certainty), answers, room(20)))
    assert [row["within_95_translation"] for row in judged] == [0.0, 1.0]
    assert judged[0]["within_95_pose"] == 0.0
    assert judged[0]["familiar"] == 1.0
