"""The command line, as it is typed."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from vpr.cli import app
from vpr.evaluation.places import embed_files

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_help_names_every_command():
    printed = run("--help").output
    for command in ("demo", "run", "play", "record", "bench", "eval", "bag", "map"):
        assert command in printed


def test_places_are_evaluated_and_written_as_json(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("reference", "query"):
        (tmp_path / folder).mkdir()
    for i in range(4):
        image = np.kron(rng.integers(0, 255, (6, 8), dtype=np.uint8), np.ones((20, 20), np.uint8))
        cv2.imwrite(str(tmp_path / "reference" / f"{i}.png"), image)
        cv2.imwrite(str(tmp_path / "query" / f"{i}.png"), cv2.GaussianBlur(image, (5, 5), 1))
    truth = tmp_path / "truth.csv"
    truth.write_text("query,references\n" + "".join(f"{i},{i}\n" for i in range(4)))
    folders = ("--reference", tmp_path / "reference", "--query", tmp_path / "query")
    out = tmp_path / "figures.json"
    result = run(
        "eval", "places", *folders, "--ground-truth", truth, "--sequence-length", 1, "--json", out
    )
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert set(figures) == {
        "recall@1", "recall@5", "recall@10", "recall_at_100_precision", "average_precision",
    }  # fmt: skip
    assert figures["recall@1"] == 1.0


def test_a_whitening_of_the_mapped_drive_is_made_and_used(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        image = np.kron(rng.integers(0, 255, (6, 8), dtype=np.uint8), np.ones((20, 20), np.uint8))
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    made = tmp_path / "white.safetensors"
    result = run("train", "whitening", tmp_path, "--out", made)
    assert result.exit_code == 0, result.output
    params = tmp_path / "params.yaml"
    params.write_text(f"/**/embedding: {{ros__parameters: {{whitening: {made}}}}}\n")
    files = sorted(tmp_path.glob("*.png"))
    whitened, plain = embed_files(files, params), embed_files(files)
    assert whitened.shape == (6, 5)
    assert np.abs(whitened @ whitened.T - np.eye(6)).mean() < np.abs(plain @ plain.T).mean()
    again = run("train", "whitening", tmp_path, "--out", made, "--params-file", params)
    assert again.exit_code == 0, again.output  # fitted to what comes before it, not to itself
    np.testing.assert_array_equal(embed_files(files, params), whitened)
    refused = run("train", "whitening", tmp_path, "--out", made, "--dimension", 6)
    assert refused.exit_code == 2
    assert "need more than 6" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bag", "info", "nowhere"), "no bag at nowhere"),
        (("map", "info", "nowhere"), "not a map"),
        (("bag", "from-7scenes", "out", "nowhere"), "no frame"),
        (
            ("eval", "places", "--reference", "a", "--query", "b", "--ground-truth", "c"),
            "no folder a",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert "Traceback" not in result.output


@pytest.mark.skipif(not (DATA / "corridor").is_dir(), reason="no shared/data/corridor here")
def test_corridor_reaches_its_figures(tmp_path):
    corridor = DATA / "corridor"
    folders = ("--reference", corridor / "ref", "--query", corridor / "query")
    truth = ("--ground-truth", corridor / "ground_truth.csv")
    found = {}
    for length in (1, 7):
        out = tmp_path / f"{length}.json"
        run("eval", "places", *folders, *truth, "--sequence-length", length, "--json", out)
        found[length] = json.loads(out.read_text())
    assert found[1]["recall@1"] >= 0.90
    assert found[7]["recall@1"] >= 0.98
    assert found[7]["recall_at_100_precision"] >= 0.9


def test_a_bridge_that_does_not_exist_is_refused_with_those_that_do():
    result = run("run", "--bridge", "teleport")
    assert result.exit_code == 2
    assert "no bridge to 'teleport'; there are vins_mono, vins_fusion" in " ".join(
        result.output.split()
    )
