"""``vpr eval s3e``: similarity, relocalization, trajectories and cost of S3E-GNN."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from vpr.commands.outcome import or_fail, show_rows

if TYPE_CHECKING:
    from vpr.evaluation.judged_sequence import JudgedSequence
    from vpr.evaluation.view_search import Search
    from vpr.relocalization.model import S3eModel

Row = dict[str, Any]
BY_WORDS = "ORB bag of words"


def eval_s3e(
    data: Annotated[list[Path], typer.Option("--data", help="RGB-D folder; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder of rows and pictures.")] = Path("out/s3e"),
    models: Annotated[
        list[Path] | None,
        typer.Option("--model", help="Of vpr train; repeatable. Default: the shipped one."),
    ] = None,
    vocabulary: Annotated[
        list[Path] | None,
        typer.Option("--vocabulary", help="RGB-D folder that bag of words learns from."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Odometries a level; 0: no pose graphs.", min=0)] = 10,
    stride: Annotated[int, typer.Option(help="Every n-th view.", min=1)] = 1,
    graphs: Annotated[
        bool, typer.Option("--graphs/--no-graphs", help="Judge the models' graph networks too.")
    ] = True,
) -> None:
    """Judge S3E-GNN on sequences that it did not learn from, beside other retrieval methods.

    Rows go to OUT as they come; a row that is there is shown, not measured again. Several models,
    of different encoders or patch sizes, stand side by side.
    """

    from vpr.evaluation.judged_sequence import JudgedModels, JudgedSequence

    def work() -> None:
        loaded = [_model(path) for path in models] if models else [_model(None)]
        known = JudgedModels(loaded, graphs)
        words = {BY_WORDS: _words(vocabulary)} if vocabulary else {}
        settings = {"vocabulary": [folder.resolve().name for folder in vocabulary or []]}
        judged = [JudgedSequence(folder, stride, known, words, settings, out) for folder in data]
        with Progress() as bar:
            tables = _measured(judged, seeds, bar)
        for title, rows in tables.items():
            show_rows(title, rows)

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


def _measured(judged: list[JudgedSequence], seeds: int, bar: Progress) -> dict[str, list[Row]]:
    """Tables by title; what has no row yet is measured."""
    from vpr.evaluation.relocalization_loops import loop_summary

    tables: dict[str, list[Row]] = {}
    candidates: dict[str, list[Row]] = {}
    driven: list[Row] = []
    task = bar.add_task("sequences", total=len(judged))
    for sequence in judged:
        tables.setdefault("similarity", []).extend(sequence.similarity())
        tables.setdefault("relocalization", []).extend(sequence.relocalization())
        tables.setdefault("probability", []).extend(sequence.probability())
        candidates[sequence.name] = sequence.candidates()
        bar.advance(task)
    tables["candidates"] = _curves(candidates)
    task = bar.add_task("pose graphs", total=sum(each.drives(seeds) for each in judged))
    for sequence in judged:
        rows = []
        for row in sequence.loops(seeds):
            rows.append(row)
            bar.advance(task)
        tables[f"ATE, {sequence.name}"] = loop_summary(rows)
        driven += rows
    tables["ATE"] = loop_summary(driven)
    return tables


def _model(path: Path | None) -> S3eModel:
    from vpr.relocalization.model import S3eModel

    return S3eModel.load() if path is None else S3eModel.load(path)


def _words(vocabulary: list[Path]) -> Search:
    """Bags of words whose vocabulary is grown when they are first asked for."""
    from vpr.evaluation.bag_of_words import VocabularyTree, orb_descriptors
    from vpr.evaluation.view_search import by_words
    from vpr.relocalization.rgbd import load_rgbd

    @cache
    def tree() -> VocabularyTree:
        images = (image for folder in vocabulary for image in load_rgbd(folder).images)
        return VocabularyTree.grown([orb_descriptors(image) for image in images])

    return lambda sequence: by_words(tree())(sequence)


def _curves(rows: dict[str, list[Row]]) -> list[Row]:
    """How far probabilities can be believed, and the curve that fits, by sequence and over all."""
    from vpr.config import RelocalizationConfig
    from vpr.evaluation.candidates import JudgedCandidates
    from vpr.evaluation.relocalization import probability_rows

    if len(rows) > 1:
        rows["all"] = [row for each in list(rows.values()) for row in each]
    config = RelocalizationConfig.from_file()
    judged = (JudgedCandidates.from_json(name, each) for name, each in rows.items())
    return [row for each in judged for row in probability_rows(each, config)]
