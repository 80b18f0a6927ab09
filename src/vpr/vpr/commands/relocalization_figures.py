"""``vpr eval s3e``: similarity, relocalization, trajectories and cost of S3E-GNN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from vpr.commands.outcome import or_fail, show_rows, write_json

if TYPE_CHECKING:
    from vpr.evaluation.view_search import Search
    from vpr.relocalization.model import S3eModel
    from vpr.relocalization.rgbd import RgbdSequence

console = Console()
Row = dict[str, Any]
PARTS = ("similarity", "candidates", "relocalization")
ATE = "ate"
BY_SEQUENCES = "vpr descriptor, sequences"  # looks for later laps in the first one only


def eval_s3e(
    data: Annotated[list[Path], typer.Option("--data", help="RGB-D folder; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder of rows and pictures.")] = Path("out/s3e"),
    models: Annotated[
        list[Path] | None,
        typer.Option("--model", help="Of vpr train gnn; repeatable. Default: the shipped one."),
    ] = None,
    vocabulary: Annotated[
        list[Path] | None,
        typer.Option("--vocabulary", help="RGB-D folder that bag of words learns from."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Odometries a level; 0: no pose graphs.", min=0)] = 10,
    stride: Annotated[int, typer.Option(help="Every n-th view.", min=1)] = 1,
) -> None:
    """Judge S3E-GNN on sequences that it did not learn from, beside other retrieval methods.

    Figures go to OUT a part at a time; a part whose file is there is shown, not measured again.
    """

    def work() -> None:
        known = [_model(path) for path in models] if models else [_model(None)]
        searches = _searches(known, vocabulary or [])
        for folder in track(data, description="sequences"):
            _judge(folder, stride, known[0], searches, seeds, out)
        _show_all(out)

    or_fail(work)


def eval_s3e_cost(
    data: Annotated[Path, typer.Argument(help="RGB-D folder to take images from.")],
    model: Annotated[Path | None, typer.Option(help="Default: the shipped one.")] = None,
    views: Annotated[int, typer.Option(min=2)] = 60,
    json_out: Annotated[Path | None, typer.Option("--json", help="Figures here too.")] = None,
) -> None:
    """Keyframes a second on two threads, and a query against 10^2 to 10^5 reference nodes."""
    from vpr.evaluation.relocalization_cost import keyframe_rate, query_costs
    from vpr.relocalization.rgbd import load_rgbd

    def work() -> list[Row]:
        own = _model(model)
        images = list(load_rgbd(data).images[:views])
        return [keyframe_rate(own, images), *query_costs(own)]

    rows = or_fail(work)
    show_rows("cost", rows, json_out)


def _judge(
    folder: Path,
    stride: int,
    model: S3eModel,
    searches: dict[str, Search],
    seeds: int,
    out: Path,
) -> None:
    """Measure what of a sequence has no file yet."""
    from vpr.config import RelocalizationConfig
    from vpr.evaluation.relocalization import in_laps, judged_candidates, relocalization_rows
    from vpr.evaluation.relocalization_loops import loop_rows
    from vpr.evaluation.view_search import asked_once
    from vpr.relocalization.relocalizer import Relocalizer
    from vpr.relocalization.reprojection import mutual, similarity_matrix
    from vpr.relocalization.rgbd import load_rgbd

    name = folder.resolve().name
    files = {part: out / part / f"{name}.json" for part in PARTS}
    of_seeds = {seed: out / ATE / f"{name}_{seed}.json" for seed in range(seeds)}
    missing = {seed: file for seed, file in of_seeds.items() if not file.is_file()}
    if all(file.is_file() for file in files.values()) and not missing:
        return
    searches = {name: asked_once(search) for name, search in searches.items()}
    sequence = in_laps(load_rgbd(folder, stride))
    truth = mutual(similarity_matrix(sequence, sequence))
    if not files["similarity"].is_file():
        write_json(_similarity_rows(sequence, model, truth, out), files["similarity"])
    if not files["candidates"].is_file():
        empty = Relocalizer(RelocalizationConfig.from_file(), model)
        write_json(judged_candidates(sequence, empty, truth).to_json(), files["candidates"])
    if not files["relocalization"].is_file():
        write_json(relocalization_rows(sequence, searches, truth), files["relocalization"])
    if missing:
        of_any_view = {name: s for name, s in searches.items() if name != BY_SEQUENCES}
        driven = loop_rows(sequence, of_any_view, list(missing))
        for file, rows in zip(missing.values(), driven, strict=True):
            write_json(rows, file)


def _similarity_rows(
    sequence: RgbdSequence, model: S3eModel, truth: NDArray[np.float32], out: Path
) -> list[Row]:
    """Errors of predicted similarities, with a picture of the encoder's and one passed on."""
    from vpr.evaluation.overlap_pictures import draw_prediction
    from vpr.evaluation.relocalization import map_rows, similarity_row
    from vpr.relocalization.known_overlap import passed_on
    from vpr.relocalization.training import cosines

    given, name = model.given(list(sequence.images)), sequence.name
    alike = cosines(model, given, sequence.laps)
    predicted = np.asarray(model.scale(alike), np.float32)
    draw_prediction(out / f"similarity_{name}.png", truth, predicted, sequence.laps)
    first = sequence.laps == sequence.laps.min()
    completed = passed_on(alike[np.ix_(~first, first)], truth[np.ix_(first, first)])
    pictured = predicted.copy()
    pictured[np.ix_(~first, first)], pictured[np.ix_(first, ~first)] = completed, completed.T
    draw_prediction(out / f"similarity_passed_on_{name}.png", truth, pictured, sequence.laps)
    rows = map_rows(sequence, predicted, completed, truth)
    return [similarity_row(sequence, predicted, truth), *rows]


def _model(path: Path | None) -> S3eModel:
    from vpr.relocalization.model import S3eModel

    return S3eModel.load() if path is None else S3eModel.load(path)


def _searches(models: list[S3eModel], vocabulary: list[Path]) -> dict[str, Search]:
    from vpr.evaluation.bag_of_words import VocabularyTree, orb_descriptors
    from vpr.evaluation.view_search import by_encoder, by_graph, by_place_descriptor, by_words
    from vpr.relocalization.rgbd import load_rgbd

    searches: dict[str, Search] = {}
    if vocabulary:
        images = (image for folder in vocabulary for image in load_rgbd(folder).images)
        described = [orb_descriptors(image) for image in images]
        searches["ORB bag of words"] = by_words(VocabularyTree.grown(described))
    searches[BY_SEQUENCES] = by_place_descriptor()
    for model in models:
        kind = f"{model.kind} {model.patches.patch_size}"
        searches[f"S3E {kind}"] = by_encoder(model)
        searches[f"S3E-GNN {kind}"] = by_graph(model)
    return searches


def _show_all(out: Path) -> None:
    from vpr.evaluation.relocalization_loops import loop_summary

    parts = {
        part: [row for file in sorted((out / part).glob("*.json")) for row in _read(file)]
        for part in (*PARTS, ATE)
    }
    parts["candidates"] = _probability(out / "candidates")
    if parts[ATE]:
        parts[ATE] = loop_summary(parts[ATE])
    for title, rows in parts.items():
        show_rows(title, rows)


def _probability(folder: Path) -> list[Row]:
    """How far probabilities can be believed, and the curve that fits, by sequence and over all."""
    from vpr.config import RelocalizationConfig
    from vpr.evaluation.candidates import JudgedCandidates
    from vpr.evaluation.relocalization import probability_rows

    rows = {file.stem: _read(file) for file in sorted(folder.glob("*.json"))}
    if len(rows) > 1:
        rows["all"] = [row for each in rows.values() for row in each]
    config = RelocalizationConfig.from_file()
    judged = (JudgedCandidates.from_json(name, each) for name, each in rows.items())
    return [row for each in judged for row in probability_rows(each, config)]


def _read(file: Path) -> list[Row]:
    rows: list[Row] = json.loads(file.read_text())
    return rows
