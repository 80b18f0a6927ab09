"""Indoor worlds: laps through textured game levels (ViZDoom, Freedoom) with pose and depth.

A tour is planned on the level's own floor plan and driven three times: twice the same way round,
the second time well beside the first track and looking a little elsewhere, and once the other way
round on the other side. 64 map units are a metre.
The engine's depth has 255 steps of 7.157 units (11 cm), measured by driving at a wall; its pixels
are 1.2 times as high as wide.
"""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter1d, label
from scipy.spatial.transform import Rotation

from vpr.records import CameraModel, Pose
from vpr.relocalization.rgbd import RgbdError, RgbdSequence

UNITS_PER_METRE = 64.0
WIDTH, HEIGHT = 320, 240
FOCAL = (160.0, 192.0)  # px: 90 degrees across; pixels are 1.2 times as high as wide
DEPTH_STEP, DEPTH_OFFSET = 7.157, 11.0  # map units
DEPTH_LAST = 190  # the engine's highest steps mean sky and unwritten rows
CELL = 16.0  # map units of the floor plan's cells
CLEARANCE = 32.0  # map units kept from walls
STEP_HEIGHT, BODY_HEIGHT = 24.0, 56.0  # map units that can be climbed and that are needed
SETTLING = 25  # tics until the view stands at its height after a move
BODY_RADIUS = 18.0  # map units of a body that does not touch the wall
KEYFRAME = 0.35  # m between views
LANE = 28.0  # map units (0.44 m) between laps that run beside each other
SWAY = 5.0  # degrees that a later lap looks aside, standard deviation
OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # base axes of a camera


@dataclass(frozen=True)
class FloorPlan:
    """Where one can stand: ``free`` (rows, columns) cells; cell (0, 0) lies at ``origin`` (x, y)
    map units; ``clearance`` in cells."""

    free: NDArray[np.bool_]
    clearance: NDArray[np.float64]
    origin: NDArray[np.float64]

    def cell(self, point: NDArray[np.float64]) -> tuple[int, int]:
        """Row and column of a point in map units."""
        column, row = ((point - self.origin) / CELL).astype(int)
        return int(row), int(column)

    def nearest(self, point: NDArray[np.float64]) -> tuple[int, int]:
        """The free cell nearest to a point in map units.

        Raises:
            RgbdError: no cell is free.
        """
        cells = np.argwhere(self.free)
        if not len(cells):
            raise RgbdError("no cell of the floor plan is free: no room for a tour")
        row, column = cells[np.linalg.norm(cells - self.cell(point), axis=1).argmin()]
        return int(row), int(column)


def record_level(level: str, keyframes: int, seed: int = 0) -> RgbdSequence:
    """Drive a level of Freedoom, e.g. ``map01``, for about ``keyframes`` views a lap.

    Raises:
        RgbdError: ViZDoom is not installed, or the level has no room for a tour.
    """
    rng = np.random.default_rng(seed)
    with _game(level, seed) as game:
        start = _position(game)
        plan = _floor_plan(game.get_state().sectors, start)
        tour = plan_tour(plan, start, keyframes, rng)
        views = [
            (lap, *_look(game, pose))
            for lap, way in enumerate(laps_of(plan, tour, rng))
            for pose in way
        ]
    return _recorded(level, views)


def plan_tour(
    plan: FloorPlan, start: NDArray[np.float64], keyframes: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(N, 2) points in map units of a closed tour, ``KEYFRAME`` apart.

    Raises:
        RgbdError: no way that long from the start.
    """
    wanted = keyframes * KEYFRAME * UNITS_PER_METRE / CELL
    first = plan.nearest(start)
    ways = _ways_from(plan, first)
    reach = {cell: cost for cell, (cost, _) in ways.items() if cost < wanted / 2.5}
    if not reach or max(reach.values()) < wanted / 12:
        raise RgbdError(f"only {len(reach)} cells can be reached: no room for a tour")
    corners = [first]
    cells = np.array(list(reach))
    while len(corners) < 5:  # farthest-point sampling among what is in reach
        far = np.min([np.linalg.norm(cells - corner, axis=1) for corner in corners], axis=0)
        corners.append(tuple(cells[int(np.argmax(far + rng.random(len(far))))]))
    rest = sorted(corners[1:], key=lambda c: np.arctan2(c[0] - first[0], c[1] - first[1]))
    path: list[tuple[int, int]] = []
    for a, b in zip([first, *rest], [*rest, first], strict=True):
        path += _way(_ways_from(plan, a), b)
    points = plan.origin + CELL * (np.array(path)[:, ::-1] + 0.5)
    return _evenly(np.asarray(gaussian_filter1d(points, 2.5, axis=0, mode="wrap")))[:keyframes]


def laps_of(
    plan: FloorPlan, tour: NDArray[np.float64], rng: np.random.Generator
) -> list[list[tuple[float, float, float]]]:
    """The tour twice and once reversed, as (x, y, heading) in map units and radians.

    The second and third lap lie up to ``LANE`` to the left and right of the first, as far as walls
    leave room, and their views are turned by a few slowly changing degrees.
    """
    room = np.array([plan.clearance[plan.cell(point)] for point in tour]) * CELL - BODY_RADIUS
    laps: list[list[tuple[float, float, float]]] = []
    for way, side in ((tour, 0.0), (tour, 1.0), (tour[::-1], 1.0)):
        lane = side * LANE * (1.0 + 0.3 * _slow(rng, len(way)))
        lane = np.minimum(lane, np.maximum(room if way is tour else room[::-1], 0.0))
        lane = gaussian_filter1d(lane, 1.5, mode="wrap")
        step = np.gradient(way, axis=0)
        step /= np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9)
        track = way + lane[:, None] * step[:, ::-1] * (-1.0, 1.0)
        heading = gaussian_filter1d(np.unwrap(np.arctan2(step[:, 1], step[:, 0])), 1.5)
        heading += side * np.radians(SWAY) * _slow(rng, len(way))
        laps.append(
            [(float(x), float(y), float(h)) for (x, y), h in zip(track, heading, strict=True)]
        )
    return laps


def _slow(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """(count,) values of unit spread that change over a dozen views."""
    values = gaussian_filter1d(rng.normal(0.0, 1.0, count), 6.0, mode="wrap")
    return np.asarray(values / max(float(values.std()), 1e-9))


@contextmanager
def _game(level: str, seed: int) -> Iterator[Any]:
    try:
        import vizdoom
    except ImportError as error:
        raise RgbdError("recording levels needs the package vizdoom: pip install it") from error
    game = vizdoom.DoomGame()
    game.set_doom_game_path(str(Path(vizdoom.__file__).parent / "freedoom2.wad"))
    game.set_doom_map(level)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
    game.set_screen_format(vizdoom.ScreenFormat.BGR24)
    game.set_depth_buffer_enabled(True)
    game.set_sectors_info_enabled(True)
    game.set_window_visible(False)
    game.set_render_hud(False)
    game.set_render_weapon(False)
    game.set_render_crosshair(False)
    game.set_available_buttons([vizdoom.Button.TURN_LEFT_RIGHT_DELTA])
    names = ("POSITION_X", "POSITION_Y", "ANGLE", "CAMERA_POSITION_Z")
    game.set_available_game_variables([getattr(vizdoom.GameVariable, name) for name in names])
    game.set_episode_timeout(0)
    game.add_game_args("+sv_cheats 1 -nomonsters +sv_noitems 1 +movebob 0 +screenblocks 12")
    game.set_seed(seed)
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:  # the engine writes its settings where it runs
        os.chdir(folder)
        try:
            game.init()
            game.new_episode()
            game.send_game_command("god")
            game.make_action([0.0], 5)
            yield game
        finally:
            game.close()
            os.chdir(here)


def _position(game: Any) -> NDArray[np.float64]:
    return np.asarray(game.get_state().game_variables[:2], np.float64)


def _floor_plan(sectors: Any, start: NDArray[np.float64]) -> FloorPlan:
    """Cells away from walls, high steps and low ceilings."""
    beside: dict[tuple[float, float, float, float], list[tuple[float, float]]] = {}
    blocking = set()
    for sector in sectors:
        for line in sector.lines:
            ends = sorted([(line.x1, line.y1), (line.x2, line.y2)])
            key = (*ends[0], *ends[1])
            beside.setdefault(key, []).append((sector.floor_height, sector.ceiling_height))
            if line.is_blocking:
                blocking.add(key)
    points = np.array([key for key in beside]).reshape(-1, 2)
    origin = points.min(axis=0) - 2 * CELL
    columns, rows = np.ceil((points.max(axis=0) - origin) / CELL).astype(int) + 2
    walls = np.zeros((rows, columns), np.uint8)
    for key, sides in beside.items():
        if key in blocking or _impassable(sides):
            a, b = (np.array(key).reshape(2, 2) - origin) / CELL
            cv2.line(walls, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), (1,))
    walls[[0, -1]] = walls[:, [0, -1]] = 1  # a way never leaves the plan
    clearance = distance_transform_edt(walls == 0)
    anywhere = FloorPlan(clearance * CELL > CLEARANCE, np.asarray(clearance), origin)
    pieces, _ = label(anywhere.free)
    reached = pieces == pieces[anywhere.nearest(start)]
    return FloorPlan(reached, anywhere.clearance, origin)


def _impassable(sides: list[tuple[float, float]]) -> bool:
    floors, ceilings = zip(*sides, strict=True)
    if len(sides) < 2:
        return False  # both sides are one sector: a line in the open
    return bool(max(floors) - min(floors) > STEP_HEIGHT) or bool(
        min(ceilings) - max(floors) < BODY_HEIGHT
    )


Ways = dict[tuple[int, int], tuple[float, tuple[int, int]]]  # cell: cost and the cell before it


def _ways_from(plan: FloorPlan, start: tuple[int, int]) -> Ways:
    """Dijkstra over the free cells; cells near walls cost more."""
    ways: Ways = {start: (0.0, start)}
    heap = [(0.0, start)]
    while heap:
        cost, cell = heapq.heappop(heap)
        if cost > ways[cell][0]:
            continue
        for dr, dc in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            to = (cell[0] + dr, cell[1] + dc)
            if not plan.free[to]:
                continue
            further = cost + float(np.hypot(dr, dc)) * (1.0 + 3.0 / float(plan.clearance[to]))
            if to not in ways or further < ways[to][0]:
                ways[to] = (further, cell)
                heapq.heappush(heap, (further, to))
    return ways


def _way(ways: Ways, end: tuple[int, int]) -> list[tuple[int, int]]:
    path = [end]
    while ways[path[-1]][1] != path[-1]:
        path.append(ways[path[-1]][1])
    return path[::-1]


def _evenly(points: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    along = np.arange(0.0, length[-1], KEYFRAME * UNITS_PER_METRE)
    return np.column_stack([np.interp(along, length, points[:, k]) for k in (0, 1)])


View = tuple[Any, NDArray[np.float32], Pose]


def _look(game: Any, pose: tuple[float, float, float]) -> View:
    """Image, depth (m) and map_T_camera from a place and heading."""
    x, y, heading = pose
    game.send_game_command(f"warp {x:.3f} {y:.3f}")
    turn = (np.degrees(heading) - game.get_state().game_variables[2] + 180.0) % 360.0 - 180.0
    game.make_action([-turn])
    game.make_action([0.0], SETTLING)
    state = game.get_state()
    at_x, at_y, angle, at_z = (float(value) for value in state.game_variables)
    steps = state.depth_buffer.astype(np.float32)
    units = np.where(steps < DEPTH_LAST, steps * DEPTH_STEP + DEPTH_OFFSET, np.nan)
    map_T_camera = np.eye(4)
    turned = Rotation.from_euler("z", angle, degrees=True).as_matrix()
    map_T_camera[:3, :3] = turned @ OPTICAL
    map_T_camera[:3, 3] = np.array([at_x, at_y, at_z]) / UNITS_PER_METRE
    return state.screen_buffer.copy(), (units / UNITS_PER_METRE).astype(np.float32), map_T_camera


def _recorded(level: str, views: list[tuple[int, Any, NDArray[np.float32], Pose]]) -> RgbdSequence:
    matrix = np.array([[FOCAL[0], 0, WIDTH / 2], [0, FOCAL[1], HEIGHT / 2], [0, 0, 1]])
    laps, images, depths, poses = zip(*views, strict=True)
    return RgbdSequence(
        level,
        CameraModel(WIDTH, HEIGHT, matrix),
        np.stack(images),
        np.stack(depths),
        np.stack(poses),
        np.arange(len(views), dtype=np.int64) * 500_000_000,
        np.array(laps, np.int64),
    )
