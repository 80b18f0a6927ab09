"""The command line: demo, run, play, record, train, eval, bag, map, graph, dataset, bench.

Commands that start nodes need a built workspace; the rest is the pure library.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from vpr.commands import graph, places, pose_regression, relocalization, semantics, sequences
from vpr.commands.bags import bag_app
from vpr.commands.graph_figures import eval_graph
from vpr.commands.learning import dataset_app, eval_selfsup, train_app
from vpr.commands.map import map_app
from vpr.commands.outcome import fail, or_fail
from vpr.config import ConfigError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
eval_app = typer.Typer(no_args_is_help=True, help="Measure on your own data.")
app.add_typer(eval_app, name="eval")
app.add_typer(bag_app, name="bag")
app.add_typer(map_app, name="map")
app.add_typer(graph.app, name="graph")
app.add_typer(dataset_app, name="dataset")
app.add_typer(train_app, name="train")
places.add_to(train_app, eval_app)
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


def _bringup(module: str) -> Any:
    """A module of vpr_bringup, or one sentence on how to get it."""
    try:
        return import_module(f"vpr_bringup.{module}")
    except ModuleNotFoundError as error:
        missing = error.name or "vpr_bringup"
        fail(f"{missing} is not importable: build the workspace (make build) and source it")


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
        fail(str(error))


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
        fail(str(error))
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
        fail(str(error))
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
        fail(str(error))
    except KeyboardInterrupt:
        console.print(f"recorded {out}")


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("out/bench"),
    readme: Annotated[bool, typer.Option(help="Also write the table of ./README.md.")] = False,
) -> None:
    """Print the headline figures, each beside its peer; a run that was stopped goes on."""
    or_fail(lambda: _bringup("bench").run_bench(out, Path("README.md") if readme else None))


def main() -> None:
    """Entry point of ``python -m vpr.cli``."""
    app(prog_name="vpr")


if __name__ == "__main__":
    main()
