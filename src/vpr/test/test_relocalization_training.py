"""Training on a made-up room: the losses fall, models are kept and read back."""

import numpy as np
import pytest
import torch
from made_up_wall import wall

from vpr.learning.errors import TrainingError
from vpr.models.weights import WeightsError
from vpr.relocalization.model import S3eModel
from vpr.relocalization.rgbd import RgbdError
from vpr.relocalization.training import (
    S3eTrainingConfig,
    balanced_loss,
    predicted_similarities,
    similarity_error,
    train_encoder,
    train_graph,
)
from vpr.relocalization.views import prepare


def quick(**changed):
    values = {"epochs": 12, "epoch_batches": 2, "batch_views": 24, "learning_rate": 0.02}
    return S3eTrainingConfig(
        **{**values, "graph_rate": 0.1, "highest_rate": 0.2, "query_length": 3, **changed}
    )


def model():
    torch.manual_seed(0)
    return S3eModel("sparse", 16, patch_count=32, dimension=32)


def test_both_losses_fall_and_the_model_is_read_back(tmp_path):
    net, sequence = model(), wall()
    scene = prepare(net, sequence)
    encoder, graph = [], []
    train_encoder(net, [scene], quick(), lambda _, loss, __: encoder.append(loss))
    train_graph(
        net, [scene], quick(epochs=30, graph_rate=0.01), lambda _, loss, __: graph.append(loss)
    )
    assert np.mean(encoder[-3:]) < 0.7 * encoder[0]
    assert np.mean(graph[-10:]) < np.mean(graph[:5])
    net.save(tmp_path / "s3e.safetensors")
    again = S3eModel.load(tmp_path / "s3e.safetensors")
    images = list(sequence.images[:3])
    assert np.allclose(again.embed(images), net.embed(images), atol=1e-6)
    assert np.allclose(np.linalg.norm(again.embed(images), axis=1), 1.0, atol=1e-5)


def test_few_loops_weigh_as_much_as_all_other_pairs():
    truth, one_place = torch.eye(50), torch.zeros(50)
    truth[3, 40] = truth[40, 3] = 0.9
    missed, imagined = torch.zeros(50, 50), torch.full((50, 50), 0.9)
    fair = quick(foreign_share=0.0)
    one, other = (
        float(balanced_loss(predicted, truth, one_place, fair)) for predicted in (missed, imagined)
    )
    assert one == pytest.approx(other, rel=0.01)
    assert float(balanced_loss(truth, truth, one_place, fair)) == 0.0
    only_loops = quick(loop_share=1.0)
    assert float(balanced_loss(missed, truth, one_place, only_loops)) == pytest.approx(2 * one)


def test_views_of_another_place_count_for_their_share():
    places = torch.arange(4) // 2
    taken_for_one = torch.where(places[:, None] == places, 0.0, 0.9)
    loss = balanced_loss(taken_for_one, torch.eye(4), places, quick(foreign_share=0.25))
    alone = balanced_loss(taken_for_one, torch.eye(4), places, quick(foreign_share=1.0))
    assert float(loss) == pytest.approx(0.25 * float(alone), rel=1e-4)


def test_the_epoch_that_did_best_on_validation_is_kept():
    net, scene = model(), prepare(model(), wall())
    scores = []
    config = quick(epochs=6, highest_rate=2.0)  # far too fast: later epochs may be worse
    train_encoder(net, [scene], config, lambda _, __, score: scores.append(score), [scene])
    predicted = predicted_similarities(net, scene.drawings[0], scene.laps)
    kept = similarity_error(predicted, scene.similarity)
    assert kept == pytest.approx(-max(scores), abs=1e-4)


def test_a_run_that_was_stopped_goes_on_to_the_same_end(tmp_path):
    class Stopped(Exception):
        pass

    def stop(epoch, *_):
        if epoch == 2:
            raise Stopped

    scene, file = prepare(model(), wall()), tmp_path / "run.safetensors"
    whole, stopped = model(), model()
    train_encoder(whole, [scene], quick(epochs=4), lambda *_: None)
    with pytest.raises(Stopped):
        train_encoder(stopped, [scene], quick(epochs=4), stop, checkpoint=file)
    again = model()
    train_encoder(again, [scene], quick(epochs=4), lambda *_: None, checkpoint=file)
    for one, other in zip(whole.encoder.parameters(), again.encoder.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    with pytest.raises(TrainingError, match="another"):
        train_encoder(model(), [scene], quick(epochs=5), lambda *_: None, checkpoint=file)


def test_labels_are_computed_once(tmp_path, monkeypatch):
    first = prepare(model(), wall(), cache=tmp_path)
    monkeypatch.setattr("vpr.relocalization.views.similarity_matrix", None)
    assert np.array_equal(prepare(model(), wall(), cache=tmp_path).similarity, first.similarity)


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


def test_the_shipped_model_embeds():
    embedded = S3eModel.load().embed(list(wall(laps=1, views=2, size=(320, 240)).images))
    assert embedded.shape == (2, 128)
    assert np.allclose(np.linalg.norm(embedded, axis=1), 1.0, atol=1e-5)
