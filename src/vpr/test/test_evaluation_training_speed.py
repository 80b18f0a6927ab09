"""Training timed against its own passes."""

from made_up_drives import small_embedding, small_training, write_drive

from vpr.evaluation.training_speed import training_speed
from vpr.learning.drives import read_drives
from vpr.learning.features import read_features
from vpr.learning.networks import make_learner
from vpr.learning.trainer import Trainer
from vpr.models.embedder import Embedder


def test_training_and_its_limit_are_timed_on_the_same_steps(tmp_path, monkeypatch):
    embedder = Embedder(small_embedding())
    drives = read_drives([write_drive(tmp_path / "set", drives=(0, 1, 2))])
    features = read_features(drives, embedder, progress=False)
    training, validation = (features.drives.rows_of(part) for part in ((0, 1), (2,)))
    config = small_training(epoch_positives=64)
    learner = make_learner(features, embedder, config, training)
    trainer = Trainer(learner, features, training, validation, config, tmp_path / "m.safetensors")
    steps = []
    learn = trainer.learn
    monkeypatch.setattr(trainer, "learn", lambda batch: (steps.append(batch), learn(batch))[1])
    speed = training_speed(trainer, steps=3)
    assert speed.training > 0.0
    assert speed.limit > 0.0
    assert len(steps) == 2 + 3 + 3
    assert {batch.pairs for batch in steps} == {16 * 11}
