"""``vpr map``: look into maps, check, merge and export them, and edit their sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from vpr.commands.outcome import explained
from vpr.config import PoseGraphConfig

map_app = typer.Typer(no_args_is_help=True, help="Look into maps, merge, edit and export them.")
console = Console(soft_wrap=True)

ParamsFile = Annotated[
    Path | None, typer.Option("--params-file", help="Parameters laid over the shipped ones.")
]
Session = Annotated[int, typer.Argument(help="Its number, as `vpr map sessions` lists it.", min=0)]


@map_app.command()
def info(folder: Path) -> None:
    """What a map holds, without reading all of it."""
    from vpr.maps.folder import open_part, read_manifest

    with explained():
        manifest = read_manifest(folder)
        table = Table("part", "holds", "table", "rows", "bytes", title=f"{folder}")
        for part in manifest.parts:
            open_part(folder, part.name)
            for name, digest in part.tables.items():
                size = digest.rows * sum(kind.row_bytes for kind in digest.columns.values())
                table.add_row(part.name, str(part.count), name, f"{digest.rows:,}", f"{size:,}")
    console.print(table)
    console.print(f"model {manifest.model or '-'}, revision {manifest.revision}, ", end="")
    console.print(f"saved {manifest.saves} times")
    sessions(folder)


@map_app.command()
def sessions(folder: Path) -> None:
    """The drives that a map is made of, and what ties them together."""
    from vpr.graph.sessions import summaries
    from vpr.graph.storage import load_graph
    from vpr.maps.folder import open_part

    table = Table("session", "keyframes", "seconds", "metres", "in the map", "closures to")
    with explained():
        for one in summaries(load_graph(open_part(folder, "graph"))):
            ties = ", ".join(f"{other}: {count}" for other, count in sorted(one.ties.items()))
            seconds = (one.last_ns - one.first_ns) / 1e9
            place = "yes" if one.anchored else "waits for a closure"
            row = (str(one.session), str(one.keyframes), f"{seconds:.1f}", f"{one.metres:.1f}")
            table.add_row(*row, place, ties or "-")
    console.print(table)


@map_app.command()
def verify(folder: Path) -> None:
    """Read every byte of a map and check it; exit status 2 and the place where it is damaged."""
    from vpr.maps.sessions import verify_map

    with explained():
        manifest = verify_map(folder)
    counts = ", ".join(f"{part.count} in {part.name}" for part in manifest.parts)
    console.print(f"{folder} is sound: {counts}")


@map_app.command()
def merge(
    out: Path,
    maps: Annotated[list[Path], typer.Argument(help="The first one's frame is kept.")],
    search: Annotated[
        bool, typer.Option(help="Look for closures between the maps, as while driving.")
    ] = True,
    params_file: ParamsFile = None,
) -> None:
    """Several maps in one; sessions that find no place stay in it and wait for one."""
    from vpr.maps.sessions import merge_maps

    with explained():
        manifest = merge_maps(out, maps)
    console.print(f"{out}: {manifest.part('graph').count} keyframes of {len(maps)} maps")
    if search:
        _anchor(out, params_file)


@map_app.command()
def anchor(folder: Path, params_file: ParamsFile = None) -> None:
    """Look for the places of sessions that are not yet tied to the map."""
    _anchor(folder, params_file)


def _anchor(folder: Path, params_file: Path | None) -> None:
    from vpr.maps.anchoring import MapMatcher

    with explained(), Progress(console=console, transient=True) as progress:
        task = progress.add_task("")

        def show(done: int, count: int, session: int) -> None:
            progress.update(task, completed=done, total=count, description=f"session {session}")

        result = MapMatcher(folder, params_file, show).anchor()
    anchored = ", ".join(map(str, result.anchored)) or "none"
    waiting = ", ".join(map(str, result.waiting)) or "none"
    console.print(f"{result.closures} closures; sessions anchored: {anchored}; waiting: {waiting}")


@map_app.command("delete-session")
def delete_session(folder: Path, session: Session) -> None:
    """Write a map anew without one of its drives."""
    from vpr.maps import sessions as edits

    with explained():
        manifest = edits.delete_session(folder, session)
    console.print(f"session {session} deleted; {manifest.part('graph').count} keyframes remain")


@map_app.command()
def reanchor(
    folder: Path,
    session: Session,
    pose: Annotated[
        tuple[float, float, float, float, float, float, float] | None,
        typer.Option(help="x y z qx qy qz qw of the session's first keyframe in the map, by hand."),
    ] = None,
    search: Annotated[
        bool, typer.Option(help="Look for its closures again, when no pose is given.")
    ] = True,
    params_file: ParamsFile = None,
) -> None:
    """Take back what ties a drive to the others, and tie it anew."""
    from vpr.geometry import pose_from_quaternion
    from vpr.graph.sessions import placement_covariance
    from vpr.maps.sessions import reanchor_session

    with explained():
        covariance = placement_covariance(PoseGraphConfig.from_file(params_file))
        placed = None if pose is None else pose_from_quaternion(pose[:3], pose[3:])
        reanchor_session(folder, session, placed, covariance)
    console.print(f"session {session} {'waits for a closure' if placed is None else 'placed'}")
    if placed is None and search:
        _anchor(folder, params_file)


@map_app.command()
def locate(
    folder: Path,
    image: Annotated[Path, typer.Argument(help="A picture taken somewhere in the map.")],
    horizontal_fov: Annotated[
        float | None, typer.Option(help="Degrees; of the camera that took it.", min=5, max=179)
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="S3E model that the map was driven with.")
    ] = None,
    params_file: ParamsFile = None,
) -> None:
    """Where in a map a picture was taken; exit status 2 and the reason where that is not known."""
    from dataclasses import replace

    import numpy as np

    from vpr.geometry import quaternion_of
    from vpr.images.decoding import decode_compressed
    from vpr.maps.locating import MapLocator
    from vpr.records import CameraModel

    with explained():
        pixels = decode_compressed(image.read_bytes())
        height, width = pixels.shape[:2]
        camera = None
        if horizontal_fov is not None:
            known = CameraModel.from_horizontal_fov(width, height, horizontal_fov)
            camera = replace(known, assumed=False)
        overrides = {} if model is None else {"s3e_model": str(model)}
        found = MapLocator(folder, params_file, **overrides).locate(pixels, camera=camera)
    x, y, z = found.pose[:3, 3]
    sigmas = np.sqrt(np.diag(found.covariance))
    console.print(f"x {x:.3f} y {y:.3f} z {z:.3f} m, within {np.linalg.norm(sigmas[:3]):.2f} m")
    quaternion = " ".join(f"{value:.4f}" for value in quaternion_of(found.pose))
    console.print(f"qx qy qz qw {quaternion}, within {np.linalg.norm(sigmas[3:]):.3f} rad")
    console.print(f"session {found.session}, {found.reason}")


@map_app.command()
def export(
    folder: Path,
    out: Path,
    kind: Annotated[
        str | None,
        typer.Option("--format", help="tum | g2o | ply | geojson | png; else by the suffix."),
    ] = None,
) -> None:
    """The keyframes that have their place in the map, for other programs; closures as a picture."""
    from vpr.maps.export import export_map

    with explained():
        count = export_map(folder, out, kind or out.suffix.removeprefix("."))
    console.print(f"{out}: {count} keyframes")
