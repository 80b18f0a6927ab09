"""vpr eval overlap on a made-up folder, and what it refuses."""

import json

import numpy as np
from typer.testing import CliRunner

from vpr.cli import app
from vpr.records import CameraModel
from vpr.relocalization.rgbd import RgbdSequence, write_realsense


def room(folder):
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = (0.0, 0.5, 0.0, 0.5)
    write_realsense(
        folder,
        RgbdSequence(
            "room",
            CameraModel(64, 48, np.array([[50.0, 0, 32], [0, 50.0, 24], [0, 0, 1]])),
            np.zeros((4, 48, 64, 3), np.uint8),
            np.full((4, 48, 64), 2.0, np.float32),
            poses,
            np.arange(4) * 10**9,
            np.array([0, 0, 1, 1]),
        ),
    )


def test_overlap_is_drawn_and_told(tmp_path):
    room(tmp_path / "room")
    figures = tmp_path / "figures.json"
    words = ["eval", "overlap", str(tmp_path / "room"), "--out", str(tmp_path), "--json", figures]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "room.png").stat().st_size > 0
    told = json.loads(figures.read_text())
    assert told["views"] == 4
    assert told["pairs_per_second"] > 0


def test_a_folder_of_another_kind_ends_with_a_sentence(tmp_path):
    result = CliRunner().invoke(app, ["eval", "overlap", str(tmp_path)])
    assert result.exit_code == 2
    assert "7-Scenes, TUM RGB-D or RealSense folder" in " ".join(result.output.split())


def test_a_view_without_texture_stops_the_training_with_a_sentence(tmp_path):
    room(tmp_path / "room")
    model = tmp_path / "s3e.safetensors"
    words = [
        "train",
        "s3e",
        "--patch-size",
        "16",
        "--data",
        str(tmp_path / "room"),
        "--out",
        str(model),
    ]
    result = CliRunner().invoke(app, [*words, "--epochs", "1"])
    assert result.exit_code == 2
    assert "blank" in result.output
    assert not model.exists()
