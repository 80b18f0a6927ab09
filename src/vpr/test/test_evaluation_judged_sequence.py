"""Rows of ``vpr eval s3e``: measured once, kept, and told apart by method, model and seed."""

import numpy as np
import pytest
import torch
from made_up_hall import there_and_back
from typer.testing import CliRunner

from vpr.cli import app
from vpr.evaluation import judged_sequence
from vpr.evaluation.judged_sequence import JudgedModels, JudgedSequence
from vpr.evaluation.kept_rows import KeptRowsError
from vpr.relocalization.model import S3eModel
from vpr.relocalization.rgbd import write_realsense


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "room"
    write_realsense(path, there_and_back(8))
    return path


def model(patch_size=16, seed=0):
    torch.manual_seed(seed)
    return S3eModel("sparse", patch_size, patch_count=32, dimension=64)


@pytest.fixture
def judged(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        judged_sequence, "by_place_descriptor", lambda: lambda s: np.eye(len(s), dtype=np.float32)
    )

    def made(*models, settings=None, graphs=False):
        known = JudgedModels(models, graphs)
        return JudgedSequence(folder, 1, known, {}, settings or {}, tmp_path)

    return made


def nothing_is_read(monkeypatch):
    monkeypatch.setattr(judged_sequence, "load_rgbd", None)


def test_rows_are_measured_once(judged, monkeypatch):
    net = model()
    net.appearance.precision.copy_(torch.eye(96))
    first = judged(net)
    similar, lost, driven = first.similarity(), first.relocalization(), list(first.loops(1))
    believed = first.probability()
    nothing_is_read(monkeypatch)
    again = judged(net)
    assert again.similarity() == similar
    assert again.relocalization() == lost
    assert again.probability() == believed
    assert list(again.loops(1)) == driven
    assert len(driven) == again.drives(1) == 3  # none, by corners, laid over
    assert [row["method"] for row in lost][-1] == "S3E sparse 16, virtual views"
    kinds = {row["pairs"] for row in similar}
    assert {"all, encoder", "lap 3 on the map, virtual views"} <= kinds


def test_another_seed_or_model_is_measured_anew(judged, monkeypatch):
    judged(model()).similarity()
    nothing_is_read(monkeypatch)
    with pytest.raises(TypeError):
        judged(model(seed=1)).similarity()
    with pytest.raises(TypeError):
        list(judged(model()).loops(1))


def test_models_stand_side_by_side_if_tables_can_tell_them_apart(judged):
    rows = judged(model(16), model(32)).relocalization()
    assert [row["method"] for row in rows][1:] == ["S3E sparse 16", "S3E sparse 32"]
    with pytest.raises(ValueError, match="same encoder and patch size"):
        JudgedModels([model(), model(seed=1)])


def test_rows_of_another_vocabulary_are_not_mixed_in(judged):
    judged(model(), settings={"vocabulary": ["one"]}).similarity()
    with pytest.raises(KeptRowsError, match="vocabulary"):
        judged(model(), settings={"vocabulary": ["other"]}).similarity()


def test_the_appearance_of_places_is_learnt_by_a_command(folder, tmp_path):
    before, after = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    model().save(before)
    words = ["train", "virtual-views", before, "--data", folder, "--out", after]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert S3eModel.load(after).appearance.fitted
    assert S3eModel.load(after).name == S3eModel.load(before).name
