"""The command line: demo, run, play, record, train, eval, bag, map, graph, dataset, bench.

Commands that start nodes need a built workspace; the rest is the pure library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vpr.commands import graph, pose_regression, relocalization, semantics, sequences
from vpr.commands.graph_figures import eval_graph
from vpr.commands.learning import dataset_app, eval_selfsup, train_app
from vpr.commands.map import map_app
from vpr.commands.outcome import write_json
from vpr.config import ConfigError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
eval_app = typer.Typer(no_args_is_help=True, help="Measure on your own data.")
bag_app = typer.Typer(no_args_is_help=True, help="Make bags: a simulated world, image folders.")
app.add_typer(eval_app, name="eval")
app.add_typer(bag_app, name="bag")
app.add_typer(map_app, name="map")
app.add_typer(graph.app, name="graph")
app.add_typer(dataset_app, name="dataset")
app.add_typer(train_app, name="train")
semantics.add_to(train_app, eval_app)
pose_regression.add_to(train_app, eval_app)
sequences.add_to(train_app, eval_app)
relocalization.add_to(dataset_app, train_app, eval_app)
eval_app.command("selfsup")(eval_selfsup)
eval_app.command("graph")(eval_graph)
SUITE_START = 30.0  # s for segmentation, embedding, loop_closure, sequence_matching, pose_graph
console = Console()

ParamsFile = Annotated[
    Path | None, typer.Option("--params-file", help="Parameters laid over the shipped ones.")
]
Composed = Annotated[
    bool, typer.Option("--composed/--processes", help="All nodes in one process, or one each.")
]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")]


def _bringup(module: str) -> Any:
    """A module of vpr_bringup, or one sentence on how to get it."""
    try:
        return import_module(f"vpr_bringup.{module}")
    except ModuleNotFoundError as error:
        missing = error.name or "vpr_bringup"
        _fail(f"{missing} is not importable: build the workspace (make build) and source it")


def _fail(message: str) -> Any:
    Console(stderr=True).print(f"[red]error:[/] {message}", highlight=False)
    raise typer.Exit(2)


@app.command()
def demo(
    seed: Annotated[
        int | None, typer.Option(help="Drive another simulated world instead of the shipped bag.")
    ] = None,
    bag: Annotated[Path | None, typer.Option(help="Play this bag instead.")] = None,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("out/demo"),
    rate: Annotated[float, typer.Option(help="Playing speed.", min=0.05, max=20.0)] = 1.0,
    composed: Composed = False,
    params_file: ParamsFile = None,
) -> None:
    """Play a bag through all nodes and show what came of it."""
    from vpr.bags.reader import BagError

    module = _bringup("demo")
    try:
        module.run_demo(
            module.DemoOptions(
                out=out,
                bag=bag,
                seed=seed,
                rate=rate,
                composed=composed,
                params_file=params_file,
            )
        )
    except (module.DemoError, BagError, ConfigError) as error:
        _fail(str(error))


@app.command()
def run(
    composed: Composed = False,
    params_file: ParamsFile = None,
    namespace: Annotated[str, typer.Option(help="Namespace of every node.")] = "",
    log_level: Annotated[str, typer.Option(help="debug | info | warn | error")] = "info",
    use_sim_time: Annotated[bool, typer.Option(help="Follow /clock.")] = False,
    map_folder: Annotated[
        Path | None, typer.Option("--map", help="Map folder to relocalize in.")
    ] = None,
    bridge: Annotated[
        str, typer.Option(help="Also give the closures to this SLAM system, e.g. rtabmap.")
    ] = "",
    pose_model: Annotated[
        Path | None, typer.Option(help="Also start pose_regression with this VLocNet++.")
    ] = None,
    gnn: Annotated[
        bool, typer.Option(help="Also start gnn_relocalization and its service relocalize.")
    ] = False,
    remap: Annotated[
        list[str] | None, typer.Option(help="Of every node, as odometry:=/odom; repeatable.")
    ] = None,
    bag: Annotated[Path | None, typer.Option(help="Also play this bag.")] = None,
    rate: Annotated[float, typer.Option(help="Playing speed of the bag.")] = 1.0,
) -> None:
    """Start the suite here, as the launch file does where ros2 launch is installed."""
    processes = _bringup("processes")
    parameters: dict[str, Any] = {} if map_folder is None else {"map": str(map_folder.resolve())}
    if pose_model is not None:
        parameters["pose_regression.pose_model"] = str(pose_model.resolve())
        for node in ("loop_closure", "gnn_relocalization"):
            parameters[f"{node}.pose_prior_used"] = True
    options = processes.RosOptions(
        params_file,
        namespace,
        log_level,
        use_sim_time or bag is not None,
        parameters,
        remap or (),
    )
    try:
        with processes.NodeProcesses() as children:
            if bridge:
                children.start_bridge(bridge, options)
            children.start_suite(options, composed)
            if pose_model is not None:
                children.start("pose_regression", options)
            if gnn:
                children.start("gnn_relocalization", options)
            if bag is not None:
                waiting = {
                    "listeners": processes.IMAGE_LISTENERS,
                    "odometry_listeners": processes.ODOMETRY_LISTENERS,
                    "listener_timeout": SUITE_START,
                }
                children.start(
                    "bag_player", _playing(processes, options, bag, rate, False, waiting)
                )
            children.wait_while_running()
    except (processes.NodeStopped, ValueError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        console.print("stopped")


def _playing(
    processes: Any,
    options: Any,
    bag: Path,
    rate: float,
    loop: bool,
    waiting: dict[str, Any] | None = None,
) -> Any:
    parameters = {"bag": str(bag.resolve()), "rate": rate, "loop": loop} | (waiting or {})
    return processes.RosOptions(
        options.params_file, options.namespace, options.log_level, False, parameters
    )


@app.command()
def play(
    bag: Path,
    rate: Annotated[float, typer.Option(help="Playing speed.")] = 1.0,
    loop: Annotated[bool, typer.Option(help="Begin again at the end.")] = False,
    namespace: Annotated[str, typer.Option(help="Namespace to play into.")] = "",
) -> None:
    """Play a bag onto its topics, with /clock."""
    processes = _bringup("processes")
    options = processes.RosOptions(namespace=namespace)
    try:
        with processes.NodeProcesses() as children:
            children.start("bag_player", _playing(processes, options, bag, rate, loop))
            children.wait_while_running()
    except processes.NodeStopped as error:
        _fail(str(error))
    except KeyboardInterrupt:
        console.print("stopped")


@app.command()
def record(
    out: Path,
    topics: Annotated[list[str] | None, typer.Option("--topic", help="Repeat for several.")] = None,
    namespace: Annotated[str, typer.Option(help="Namespace the topics are relative to.")] = "",
) -> None:
    """Record the suite's topics into a bag (MCAP) until interrupted."""
    processes = _bringup("processes")
    parameters: dict[str, Any] = {"bag": str(out.resolve())}
    if topics:
        parameters["topics"] = list(topics)
    try:
        with processes.NodeProcesses() as children:
            children.start(
                "bag_recorder", processes.RosOptions(namespace=namespace, parameters=parameters)
            )
            children.wait_while_running()
    except processes.NodeStopped as error:
        _fail(str(error))
    except KeyboardInterrupt:
        console.print(f"recorded {out}")


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("out/bench"),
    readme: Annotated[bool, typer.Option(help="Also write the table of ./README.md.")] = False,
) -> None:
    """Print the headline figures, each beside its peer, with p50 and p95."""
    _bringup("bench").run_bench(out, Path("README.md") if readme else None)


@eval_app.command("places")
def eval_places(
    reference: Annotated[Path, typer.Option(help="Folder of reference images.")],
    query: Annotated[Path, typer.Option(help="Folder of query images.")],
    ground_truth: Annotated[
        Path, typer.Option(help="CSV 'query,references' with space-separated indices.")
    ],
    sequence_length: Annotated[
        int | None, typer.Option(help="Frames matched together; 1 is single-image.", min=1)
    ] = None,
    json_out: JsonOut = None,
    params_file: ParamsFile = None,
) -> None:
    """Recall, recall at 100 % precision and average precision over two image folders."""
    from vpr.evaluation.places import EvaluationError, evaluate_places
    from vpr.images.decoding import ImageError

    try:
        result = evaluate_places(
            reference, query, ground_truth, sequence_length, params_file=params_file
        )
    except (EvaluationError, ImageError, ConfigError) as error:
        _fail(str(error))
    values = result.to_json()
    _print_figures(f"{query.name} in {reference.name}", values)
    write_json(values, json_out)


@eval_app.command("verification")
def eval_verification(
    reference: Annotated[Path, typer.Option(help="Folder of reference images.")],
    query: Annotated[Path, typer.Option(help="Folder of query images.")],
    ground_truth: Annotated[
        Path, typer.Option(help="CSV 'query,references' with space-separated indices.")
    ],
    every: Annotated[int, typer.Option(help="Judge every so-many-th query.", min=1)] = 6,
    json_out: JsonOut = None,
    params_file: ParamsFile = None,
) -> None:
    """What ORB, XFeat and LightGlue tell apart by two images alone, and what they cost."""
    from rich.progress import Progress

    from vpr.evaluation.places import EvaluationError, image_files
    from vpr.evaluation.verification import CHOICES, evaluate_verification

    table = Table(
        "features", "matcher", "one place passes", "inliers", "two places pass", "most inliers",
        "ms an image", "ms a pair", title=f"{query.name} in {reference.name}",
    )  # fmt: skip
    rows = []
    try:
        queries = -(-len(image_files(query)) // every)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("pairs", total=len(CHOICES) * queries)
            for choice in CHOICES:
                found = evaluate_verification(
                    reference, query, ground_truth, choice, every, params_file,
                    progress=lambda: progress.advance(task),
                )  # fmt: skip
                rows.append(asdict(found))
                table.add_row(
                    found.features, found.matcher, f"{found.right_passed:.0%}",
                    f"{found.right_inliers:.0f}", f"{found.wrong_passed} of {found.wrong}",
                    str(found.wrong_inliers), f"{found.extraction_ms:.1f}",
                    f"{found.matching_ms:.1f}",
                )  # fmt: skip
    except (EvaluationError, ConfigError) as error:
        _fail(str(error))
    console.print(table)
    write_json({"rows": rows}, json_out)


Overwrite = Annotated[bool, typer.Option(help="Replace the bag if it exists.")]


@bag_app.command("world")
def bag_world(
    out: Path,
    seed: Annotated[int, typer.Option(help="Each seed is another town, route and noise.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Drive through a simulated town and record it."""
    from vpr.bags.reader import BagError
    from vpr.simulation.config import SimulationConfig
    from vpr.simulation.recording import own_spot, record_drive

    try:
        config = SimulationConfig(gps_longitude=own_spot(seed))
        drive = record_drive(out, seed, config, overwrite=overwrite)
    except BagError as error:
        _fail(str(error))
    console.print(
        f"{drive.path}: {drive.images} images, {drive.seconds:.0f} s, {drive.metres:.0f} m"
    )


@bag_app.command("from-folders")
def bag_from_folders(
    out: Path,
    folders: Annotated[list[Path], typer.Argument(help="Image folders, walked one by one.")],
    rate: Annotated[float, typer.Option(help="Images a second.", min=0.1, max=120.0)] = 5.0,
    overwrite: Overwrite = False,
) -> None:
    """Image folders as one bag: walk the reference, then the query traverse."""
    from vpr.bags.folders import write_traverses

    _write_bag(out, lambda: write_traverses(out, folders, rate, overwrite))


@bag_app.command("from-7scenes")
def bag_from_seven_scenes(
    out: Path,
    folder: Path,
    rate: Annotated[float, typer.Option(help="Frames a second.", min=0.1, max=120.0)] = 30.0,
    translation_noise: Annotated[float, typer.Option(help="Odometry noise, m a frame.")] = 0.005,
    rotation_noise: Annotated[float, typer.Option(help="Odometry noise, rad a frame.")] = 0.002,
    seed: Annotated[int, typer.Option(help="Of the odometry noise.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """A 7-Scenes RGB-D sequence, with odometry that drifts from its true poses."""
    from vpr.bags.folders import write_seven_scenes

    def write() -> int:
        noise = (translation_noise, rotation_noise, seed)
        return write_seven_scenes(out, folder, rate, *noise, overwrite)

    _write_bag(out, write)


@bag_app.command("from-karlsruhe")
def bag_from_karlsruhe(out: Path, folder: Path, overwrite: Overwrite = False) -> None:
    """A Karlsruhe drive: its left images and the fixes of its INS."""
    from vpr.bags.folders import write_karlsruhe

    _write_bag(out, lambda: write_karlsruhe(out, folder, overwrite))


@bag_app.command("info")
def bag_info(bag: Path) -> None:
    """What a bag holds."""
    from vpr.bags.reader import BagError, BagReader

    try:
        with BagReader(bag) as reader:
            table = Table("topic", "type", title=f"{bag}: {reader.duration_ns / 1e9:.1f} s")
            for topic, kind in sorted(reader.topics.items()):
                table.add_row(topic, kind)
    except BagError as error:
        _fail(str(error))
    console.print(table)


def _write_bag(out: Path, write: Callable[[], int]) -> None:
    from vpr.bags.reader import BagError
    from vpr.evaluation.places import EvaluationError

    try:
        written = write()
    except (BagError, EvaluationError) as error:
        _fail(str(error))
    console.print(f"{out}: {written} images")


def _print_figures(title: str, values: dict[str, Any]) -> None:
    table = Table("figure", "value", title=title)
    for name, value in values.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    console.print(table)


def main() -> None:
    """Entry point of ``python -m vpr.cli``."""
    app(prog_name="vpr")


if __name__ == "__main__":
    main()
