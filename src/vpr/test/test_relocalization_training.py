"""Training on a made-up room: the losses fall, models are kept and read back."""

import numpy as np
import pytest

from vpr.models.weights import WeightsError
from vpr.records import CameraModel
from vpr.relocalization.model import S3eModel
from vpr.relocalization.rgbd import RgbdError, RgbdSequence
from vpr.relocalization.training import (
    S3eTrainingConfig,
    balanced_pairs,
    prepare,
    train_encoder,
    train_graph,
)


def wall(laps=2, views=6):
    """A camera that slides along a textured wall 2 m away, ``laps`` times."""
    blocks = np.random.default_rng(0).integers(0, 256, (12, 100, 3))
    texture = np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)  # 100 px a metre
    images, poses = [], []
    for _ in range(laps):
        for view in range(views):
            images.append(texture[:, 100 * view : 100 * view + 128])
            pose = np.eye(4)
            pose[0, 3] = view
            poses.append(pose)
    count = laps * views
    camera = CameraModel(128, 96, np.array([[200.0, 0, 64], [0, 200.0, 48], [0, 0, 1]]))
    depths = np.full((count, 96, 128), 2.0, np.float32)
    stamps = np.arange(count, dtype=np.int64)
    return RgbdSequence(
        "wall", camera, np.stack(images), depths, np.stack(poses), stamps, stamps // views
    )


def quick(**changed):
    values = {"epochs": 12, "epoch_pairs": 32, "batch_pairs": 16, "highest_rate": 0.02}
    return S3eTrainingConfig(**{**values, "graph_rate": 0.1, "query_length": 3, **changed})


def model():
    import torch

    torch.manual_seed(0)
    return S3eModel("sparse", 16, patch_count=32, dimension=32)


def test_both_losses_fall_and_the_model_is_read_back(tmp_path):
    net, sequence = model(), wall()
    scene = prepare(net, sequence)
    encoder, graph = [], []
    train_encoder(net, [scene], quick(), lambda _, loss: encoder.append(loss))
    train_graph(net, [scene], quick(epochs=30), lambda _, loss: graph.append(loss))
    assert np.mean(encoder[-3:]) < 0.7 * encoder[0]
    assert np.mean(graph[-10:]) < np.mean(graph[:5])
    net.save(tmp_path / "s3e.safetensors")
    again = S3eModel.load(tmp_path / "s3e.safetensors")
    images = list(sequence.images[:3])
    assert np.allclose(again.embed(images), net.embed(images), atol=1e-6)
    assert np.allclose(np.linalg.norm(again.embed(images), axis=1), 1.0, atol=1e-5)


def test_half_of_the_pairs_are_loops():
    similarity = np.eye(50, dtype=np.float32)
    similarity[3, 40] = similarity[40, 3] = 0.6
    rows, columns = balanced_pairs(np.random.default_rng(0), similarity, 0.1, 40)
    assert (similarity[rows, columns] > 0.1).sum() == 20
    assert not np.any(rows == columns)


def test_a_single_lap_cannot_teach_the_graph_network():
    net = model()
    with pytest.raises(RgbdError, match="second lap"):
        train_graph(net, [prepare(net, wall(laps=1))], quick(), lambda *_: None)


def test_damaged_and_foreign_models_are_refused(tmp_path):
    file = tmp_path / "s3e.safetensors"
    model().save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="corrupt"):
        S3eModel.load(file)
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3, np.float32)}, file)
    with pytest.raises(WeightsError, match="not an S3E model"):
        S3eModel.load(file)
