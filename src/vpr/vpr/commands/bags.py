"""``vpr bag``: bags made of a simulated world or of folders of images, and what one holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from vpr.commands.outcome import explained, or_fail

bag_app = typer.Typer(no_args_is_help=True, help="Make bags: a simulated world, image folders.")
console = Console()
Overwrite = Annotated[bool, typer.Option(help="Replace the bag if it exists.")]


@bag_app.command("world")
def bag_world(
    out: Path,
    seed: Annotated[int, typer.Option(help="Each seed is another town, route and noise.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Drive through a simulated town and record it."""
    from vpr.simulation.config import SimulationConfig
    from vpr.simulation.recording import own_spot, record_drive

    config = SimulationConfig(gps_longitude=own_spot(seed))
    drive = or_fail(lambda: record_drive(out, seed, config, overwrite=overwrite))
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


@bag_app.command("from-rgbd")
def bag_from_rgbd(
    out: Path,
    folder: Annotated[Path, typer.Argument(help="A 7-Scenes, TUM RGB-D or RealSense folder.")],
    rate: Annotated[float, typer.Option(help="Frames a second.", min=0.1, max=120.0)] = 2.0,
    translation_noise: Annotated[float, typer.Option(help="Odometry noise, m a frame.")] = 0.01,
    rotation_noise: Annotated[float, typer.Option(help="Odometry noise, rad a frame.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Of the odometry noise.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """An RGB-D folder, as of `dataset from-level`, with odometry that drifts from its poses."""
    from vpr.bags.folders import write_rgbd

    def write() -> int:
        noise = (translation_noise, rotation_noise, seed)
        return write_rgbd(out, folder, rate, *noise, overwrite)

    _write_bag(out, write)


@bag_app.command("from-karlsruhe")
def bag_from_karlsruhe(out: Path, folder: Path, overwrite: Overwrite = False) -> None:
    """A Karlsruhe drive: its left images and the fixes of its INS."""
    from vpr.bags.folders import write_karlsruhe

    _write_bag(out, lambda: write_karlsruhe(out, folder, overwrite))


@bag_app.command("info")
def bag_info(bag: Path) -> None:
    """What a bag holds."""
    from vpr.bags.reader import BagReader

    with explained(), BagReader(bag) as reader:
        table = Table("topic", "type", title=f"{bag}: {reader.duration_ns / 1e9:.1f} s")
        for topic, kind in sorted(reader.topics.items()):
            table.add_row(topic, kind)
    console.print(table)


def _write_bag(out: Path, write: Callable[[], int]) -> None:
    console.print(f"{out}: {or_fail(write)} images")
