"""Table I on a small folder in the format of Mapillary Street-Level Sequences."""

from pathlib import Path

import pytest
import torch
from made_up_streets import write_cities
from typer.testing import CliRunner

from vpr.cli import app
from vpr.config import SegmentationConfig
from vpr.evaluation.graded import graded_rows, street_level_places
from vpr.learning.graded_training import GradedTrainingConfig
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


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["eval", "graded", "--msls", "."], "no city 'amman'"),
        (["eval", "graded", "--masked", "magic"], "magic"),
        (["train", "places", "out.safetensors", "--msls", "."], "no city 'amman'"),
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
