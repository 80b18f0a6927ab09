"""Training from dataset folders: the paper's loop on a made-up street."""

import csv
import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_drives import small_embedding, small_training, write_drive

from vpr.config import SequenceMatchingConfig
from vpr.learning.descriptor import TrainingData, train_descriptor
from vpr.learning.drives import read_drives
from vpr.learning.errors import TrainingError
from vpr.learning.features import FeatureCache, read_features
from vpr.learning.loss import contrastive_loss, distances
from vpr.models.descriptor_model import DescriptorModel, DescriptorModelError
from vpr.models.embedder import Embedder
from vpr.records import GpsFix
from vpr.supervision.dataset import DatasetError

SEQUENCES = SequenceMatchingConfig.from_file()


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Three drives to learn from, and two to be judged on."""
    root = tmp_path_factory.mktemp("street")
    return TrainingData(
        training=[write_drive(root / "train", drives=(0, 1, 2))],
        validation=[write_drive(root / "held_out", drives=(3, 4))],
    )


@pytest.fixture(scope="module")
def trained(street, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "street.safetensors"
    return train(street, out, epochs=6)


def train(data, out, embedding=None, fresh=False, epoch_done=None, **changes):
    embedding = embedding or small_embedding()
    return train_descriptor(
        data, out, embedding, small_training(**changes), SEQUENCES, fresh, False, epoch_done
    )


class Killed(BaseException):
    """Ends a run in the middle, as SIGKILL would."""


def test_the_loss_is_equations_7_and_8():
    rng = np.random.default_rng(0)
    a, b, c = (torch.from_numpy(rng.normal(size=s)) for s in ((4, 3), (4, 3), (4, 5, 3)))
    expected = np.mean([np.sum((a[i] - b[i]).numpy() ** 2) for i in range(4)])
    gaps = [2.0 - np.linalg.norm(a[i] - c[i, j]) for i in range(4) for j in range(5)]
    expected += np.mean(np.maximum(gaps, 0.0) ** 2)
    assert float(contrastive_loss(a, b, c, 2.0)) == pytest.approx(expected)


def test_two_equal_images_do_not_break_the_gradient():
    a = torch.ones(2, 3, requires_grad=True)
    contrastive_loss(a, torch.ones(2, 3), torch.ones(2, 4, 3), 1.0).backward()
    assert torch.isfinite(a.grad).all()
    assert float(distances(a, torch.ones(2, 3)).sum().detach()) == 0.0


def test_training_recognises_the_street_better_in_light_it_has_not_seen(trained):
    assert trained.outcome.after.score > trained.outcome.before.score
    assert trained.outcome.best_epoch > 0
    log = list(csv.DictReader(trained.file.with_suffix(".csv").open()))
    assert [row["epoch"] for row in log] == [str(n) for n in range(7)]
    assert float(log[-1]["loss"]) < float(log[1]["loss"])
    assert trained.model.provenance["positive_pairs"] > 10


def test_the_embedder_describes_with_a_trained_model(trained, street):
    embedder = Embedder(small_embedding(model=str(trained.file)))
    assert embedder.model == trained.model.name
    assert embedder.dimension == 32
    plain = Embedder(small_embedding())
    drives = read_drives(street.validation)
    base = read_features(drives, plain, progress=False).values
    learned = read_features(drives, embedder, progress=False).values
    np.testing.assert_allclose(np.linalg.norm(learned, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(trained.model.forward_from(plain.model, base), learned, atol=1e-5)


def test_a_model_for_other_layers_is_refused(trained):
    with pytest.raises(DescriptorModelError, match="was made for the descriptor"):
        Embedder(small_embedding(model=str(trained.file), layer_grids=["1x1", "1x1"]))


def test_training_on_top_brings_descriptors_forward_without_images(trained, street, tmp_path):
    onto = small_embedding(model=str(trained.file))
    second = train(street, tmp_path / "second.safetensors", onto, epochs=1)
    assert len(second.model.heads) == 2
    base = read_features(read_drives(street.validation), Embedder(small_embedding()), False).values
    first = trained.model.forward_from(trained.model.names[0], base)
    np.testing.assert_allclose(
        second.model.forward_from(trained.model.name, first),
        second.model.forward_from(trained.model.names[0], base),
        atol=1e-6,
    )
    with pytest.raises(DescriptorModelError, match="not trained on top of"):
        second.model.forward_from("other@123", base)


def test_a_killed_run_goes_on_to_the_same_result(street, trained, tmp_path):
    def kill(row):
        if row["epoch"] == 3:
            raise Killed

    out = tmp_path / "killed.safetensors"
    with pytest.raises(Killed):
        train(street, out, epochs=6, epoch_done=kill)
    assert not out.exists()
    resumed = train(street, out, epochs=6)
    assert resumed.model.name == trained.model.name
    for a, b in zip(resumed.model.heads, trained.model.heads, strict=True):
        for name, tensor in a.state_dict().items():
            assert torch.equal(tensor, b.state_dict()[name])


def test_a_checkpoint_of_other_values_is_not_gone_on_with(street, tmp_path):
    def kill(_row):
        raise Killed

    out = tmp_path / "model.safetensors"
    with pytest.raises(Killed):
        train(street, out, epoch_done=kill)
    with pytest.raises(TrainingError, match="other drives or values"):
        train(street, out, learning_rate=1e-5)
    assert train(street, out, learning_rate=1e-5, fresh=True, epochs=1).file.exists()


def test_it_stops_when_nothing_gets_better(street, tmp_path):
    stopped = train(street, tmp_path / "m.safetensors", epochs=40, patience=2, learning_rate=1e-9)
    assert stopped.outcome.epochs == 2
    assert stopped.outcome.best_epoch == 0


def test_the_papers_margin_spreads_unnormalised_embeddings(street, tmp_path):
    made = train(street, tmp_path / "m.safetensors", normalised=False, epochs=4)
    embedder = Embedder(small_embedding(model=str(made.file)))
    assert not embedder.normalised
    values = read_features(read_drives(street.training), embedder, False).values
    typical = np.median(np.linalg.norm(values[:24, None] - values[None, :24], axis=2))
    assert 4.0 < typical < 25.0  # of the order of alpha = 10, not of 1


def test_fc6_and_fc7_are_a_head(street, tmp_path):
    made = train(street, tmp_path / "m.safetensors", head="fc6_fc7", epochs=1, patience=1)
    assert made.model.heads[0].kind == "fc6_fc7"
    assert DescriptorModel.load(made.file).name == made.model.name


def test_the_end_of_the_backbone_can_be_trained_as_well(street, tmp_path):
    made = train(
        street, tmp_path / "m.safetensors", unfreeze=1, epochs=1, epoch_positives=8,
        batch_positives=4, negatives_per_positive=2, trunk_learning_rate=1e-3,
        learning_rate=1e-3,
    )  # fmt: skip
    assert {name.rsplit(".", 2)[0] for name in made.model.trunk} == {"_blocks.12"}
    embedder = Embedder(small_embedding(model=str(made.file)))
    assert embedder.model == made.model.name
    assert embedder.dimension == 32


def test_snapshots_are_kept_along_the_way(street, tmp_path):
    out = tmp_path / "m.safetensors"
    train(street, out, epochs=4, snapshots=3)
    names = sorted(path.name for path in (tmp_path / "m.epochs").iterdir())
    assert names == [f"epoch_{n:05d}.safetensors" for n in (0, 1, 4)]


def test_two_processes_come_to_what_one_does(street, tmp_path):
    script = tmp_path / "two.py"
    script.write_text(
        "from pathlib import Path\n"
        "from made_up_drives import small_embedding, small_training\n"
        "from vpr.config import SequenceMatchingConfig\n"
        "from vpr.learning.descriptor import TrainingData, train_descriptor\n"
        f"data = TrainingData({[str(p) for p in street.training]}, "
        f"{[str(p) for p in street.validation]})\n"
        f"train_descriptor(data, Path({str(tmp_path / 'two.safetensors')!r}), small_embedding(),"
        " small_training(epochs=2, patience=5), SequenceMatchingConfig.from_file(),"
        " progress=False)\n"
    )
    here = str(Path(__file__).parent)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(script),
    ]  # fmt: skip
    environment = {**__import__("os").environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = f"{here}:{environment.get('PYTHONPATH', '')}"
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one = train(street, tmp_path / "one.safetensors", epochs=2, patience=5).model.heads[0]
    two = DescriptorModel.load(tmp_path / "two.safetensors").heads[0]
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], tensor, atol=1e-3, rtol=1e-2)


def test_a_loss_that_is_not_finite_ends_the_run_in_words(street, tmp_path, monkeypatch):
    nan = torch.tensor(float("nan"), requires_grad=True)
    monkeypatch.setattr("vpr.learning.trainer.contrastive_loss", lambda *_: nan * 1.0)
    with pytest.raises(TrainingError, match="loss is not finite in epoch 1: lower learning_rate"):
        train(street, tmp_path / "m.safetensors")


def test_a_full_disk_leaves_the_checkpoint_before(street, tmp_path, monkeypatch):
    from vpr.models import descriptor_model

    written = []

    def full(tensors, path, metadata):
        if len(written) == 2:
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return original(tensors, path, metadata)

    out = tmp_path / "m.safetensors"
    original = descriptor_model.save_file
    monkeypatch.setattr(descriptor_model, "save_file", full)
    with pytest.raises(DescriptorModelError, match="No space left on device"):
        train(street, out, epochs=4)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.checkpoint.safetensors", "m.csv"]
    epochs = []
    train(street, out, epochs=4, epoch_done=lambda row: epochs.append(row["epoch"]))
    assert epochs == [3, 4]


def test_images_that_do_not_decode_are_left_out_and_named(tmp_path):
    folder = write_drive(tmp_path / "set", drives=(0, 1))
    broken = folder / "images/000003.png"
    broken.write_bytes(b"\x89PNG no")
    (folder / "images/000005.png").unlink()
    features = read_features(read_drives([folder]), Embedder(small_embedding()), False)
    assert [path.name for path in features.unreadable] == ["000003.png", "000005.png"]
    assert len(features.drives) == len(features.values) == 46
    for path in list((folder / "images").iterdir())[:30]:
        path.write_bytes(b"")
    with pytest.raises(TrainingError, match="of 48 images can't be read"):
        read_features(read_drives([folder]), Embedder(small_embedding()), False)


def test_features_are_computed_once(tmp_path, monkeypatch):
    drives = read_drives([write_drive(tmp_path / "set")])
    embedder = Embedder(small_embedding())
    first = read_features(drives, embedder, False).values
    monkeypatch.setattr(embedder, "embed", None)
    np.testing.assert_array_equal(read_features(drives, embedder, False).values, first)
    FeatureCache(tmp_path / "set", embedder.model).file.write_bytes(b"damaged")
    with pytest.raises(TypeError):
        read_features(drives, embedder, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"spacing": 0.1}, "all positions lie within .* must cover 20 m"),
        ({"places": 3, "spacing": 30.0}, "are needed: drive the same way more than once"),
    ],
)
def test_drives_that_teach_nothing_are_refused_in_words(street, tmp_path, arguments, said):
    folder = write_drive(tmp_path / "set", drives=(0, 1), **arguments)
    with pytest.raises(TrainingError, match=said):
        train(TrainingData([folder], street.validation), tmp_path / "m.safetensors")


def test_one_drive_is_not_held_out_from_itself(tmp_path):
    folder = write_drive(tmp_path / "set")
    with pytest.raises(TrainingError, match="name one with --validation"):
        train(TrainingData([folder]), tmp_path / "m.safetensors")
    with pytest.raises(DatasetError, match="not a dataset"):
        train(TrainingData([tmp_path / "nothing"]), tmp_path / "m.safetensors")


def test_validation_that_comes_back_to_nothing_is_refused(street, tmp_path):
    lone = write_drive(tmp_path / "lone", street=5, origin=GpsFix(40.0, -3.0, 600.0))
    with pytest.raises(TrainingError, match="never come back"):
        train(TrainingData(street.training, [lone]), tmp_path / "m.safetensors")


def test_two_cities_share_no_place(tmp_path):
    here = write_drive(tmp_path / "here")
    there = write_drive(tmp_path / "there", origin=GpsFix(-33.9, 151.2, 20.0))
    drives = read_drives([here, there])
    apart = drives.viewpoints.distances(drives.viewpoints)
    assert apart[:24, 24:].min() > 1e6
    np.testing.assert_allclose(np.diff(drives.viewpoints.positions[24:, 0]), 6.0, atol=1.1)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_files_that_are_no_model_are_refused(trained, tmp_path, content):
    path = tmp_path / "model.safetensors"
    if content is None:
        path.write_bytes(trained.file.read_bytes()[:-50])
    else:
        path.write_bytes(content)
    with pytest.raises(DescriptorModelError, match=r"model.safetensors"):
        DescriptorModel.load(path)
