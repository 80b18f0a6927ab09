"""Table I on a small folder in the format of Mapillary Street-Level Sequences."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_streets import write_cities
from typer.testing import CliRunner

from vpr.cli import app
from vpr.config import SegmentationConfig
from vpr.evaluation.graded import graded_rows, street_level_places
from vpr.evaluation.kept_rows import KeptRows, KeptRowsError
from vpr.learning.graded_training import GradedTrainingConfig
from vpr.models.place_network import Integration
from vpr.semantics.mask_cache import MaskCache

torch.set_num_threads(1)  # two would wait for each other on a busy machine


def test_cities_are_cached_learnt_from_and_judged(tmp_path: Path) -> None:
    write_cities(tmp_path, ("zurich", "cph"))
    config = SegmentationConfig.from_file(network_width=64)
    places = street_level_places(tmp_path, tmp_path / "cache", ["zurich"], ["cph"], config)
    assert len(MaskCache.open(tmp_path / "cache" / "zurich").manifest.images) == 6
    values = GradedTrainingConfig(steps=1, pairs=2)
    rows = graded_rows(*places, values, schemes=["0-1"])
    assert [row["method"] for row in rows][-1] == "Masked-0-1, constant mask"
    assert all(row["recall@5"] == 1.0 for row in rows)
    assert rows[0]["recall@1"] == 1.0  # the same pictures on both sides
    assert rows[0]["deviation of recall@1"] == 0.0  # of one city


def test_activations_of_cities_reach_the_network_and_its_controls(tmp_path: Path) -> None:
    write_cities(tmp_path, ("zurich", "cph"))
    config = SegmentationConfig.from_file(network_width=64)
    cities = ["zurich"], ["cph"], config
    trained, judged = street_level_places(tmp_path, tmp_path / "cache", *cities, activations=True)
    images = trained[0].queries
    own, others = images.batch([0]), images.shuffled(np.random.default_rng(0)).batch([0])
    assert own.activations.shape[1] == 19
    assert not torch.equal(own.activations, others.activations)
    mean = torch.stack([images.batch([row]).activations[0] for row in range(len(images))]).mean(0)
    torch.testing.assert_close(images.constant().batch([0]).activations[0], mean, atol=3e-3, rtol=0)
    values = GradedTrainingConfig(steps=1, pairs=2)
    ways = [Integration.ACTIVATION_CHANNELS, Integration.LEARNED]
    rows = graded_rows(trained, judged, values, ways, schemes=["0-1"])
    assert [row["method"] for row in rows[:2]] == ["activation_channels-0-1", "learned-0-1"]
    again = street_level_places(tmp_path, tmp_path / "cache", *cities)  # masks only: they are there
    assert again[0][0].queries.cache.manifest.activations


def test_rows_kept_are_not_computed_again_and_those_of_other_settings_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.json"
    kept = KeptRows(path, {"steps": 40})
    assert kept.row("Normal-All", lambda: {"recall@1": 0.5}) == {"recall@1": 0.5}
    with pytest.raises(ZeroDivisionError):
        kept.row("Masked-All", lambda: {"recall@1": 1 / 0})
    again = KeptRows(path, {"steps": 40})
    assert again.row("Normal-All", lambda: {"recall@1": 1 / 0}) == {"recall@1": 0.5}
    assert "Masked-All" not in again
    with pytest.raises(KeptRowsError, match="made with steps 40, not 60"):
        KeptRows(path, {"steps": 60})
    path.write_text("[]")
    with pytest.raises(KeptRowsError, match="holds no rows"):
        KeptRows(path, {"steps": 40})


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["eval", "graded", "--msls", "."], "no city 'amman'"),
        (["eval", "graded", "--masked", "magic"], "unknown integration 'magic': none, mult"),
        (["train", "places", "out.safetensors", "--msls", "."], "no city 'amman'"),
        (["train", "places", "out.safetensors", "--msls", ".", "--by-depth"], "needs depth"),
        (["eval", "attention", "--way", "added"], "no way 'added'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    command: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vpr.evaluation.graded.simulated_places", lambda *_: ([], []))
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output


def test_an_unknown_class_in_a_parameter_file_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**/segmentation:\n  ros__parameters:\n    static_classes: [tree]\n")
    result = CliRunner().invoke(app, ["eval", "segmentation", "--params-file", str(mine)])
    assert result.exit_code == 2
    assert "unknown class 'tree'" in " ".join(result.output.split())
