"""Rendered depth and labels are exact; images agree with them under a change of view."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vpr.geometry import inverse, pose_from_xy_yaw
from vpr.records import CameraModel, Pose
from vpr.simulation.atlas import AtlasBuilder
from vpr.simulation.labels import Label
from vpr.simulation.lighting import sunny_morning
from vpr.simulation.panels import Panel, PanelSet
from vpr.simulation.renderer import GroundLayer, Renderer
from vpr.simulation.textures import cloud_noise

CAMERA = CameraModel.from_horizontal_fov(160, 120, 80.0)
HEIGHT = 1.5  # m
BASE_T_CAMERA = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], np.float64)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    """A 40 m square of smooth ground and one smooth wall texture (number 0, 10 texels a metre)."""
    rng = np.random.default_rng(0)
    builder = AtlasBuilder()
    smooth = (np.clip(cloud_noise(rng, 120, 240, 60, 30), 0, 1) * 255).astype(np.uint8)
    builder.add(cv2.cvtColor(smooth, cv2.COLOR_GRAY2BGR), 10.0)
    floor = (cloud_noise(rng, 400, 400, 80, 40) * 255).astype(np.uint8)
    ground = builder.add(cv2.cvtColor(floor, cv2.COLOR_GRAY2BGR), 10.0)
    grain = builder.add(np.full((8, 8, 3), 128, np.uint8), 96.0)
    labels = np.full((400, 400), Label.ROAD, np.uint8)
    sunlight = np.ones((40, 40), np.float32)
    layer = GroundLayer(ground, grain, labels, sunlight, (-20.0, 20.0), 10.0, 1.0)
    return Renderer(builder.build(), layer, sunny_morning(0), CAMERA, HEIGHT)


def wall(distance: float, top: float = 4.0, slant: float = 0.0) -> Panel:
    """A wall across the view of a camera at the origin looking along x."""
    return Panel(
        (distance - slant, 12.0), (distance + slant, -12.0), 0.0, top, 0,
        (0.0, 240.0, 0.0, 120.0), Label.BUILDING,
    )  # fmt: skip


def rays() -> tuple[np.ndarray, np.ndarray]:
    """Slope to the right of each column and down of each row."""
    k = CAMERA.matrix
    right = (np.arange(CAMERA.width) - k[0, 2]) / k[0, 0]
    down = (np.arange(CAMERA.height) - k[1, 2]) / k[1, 1]
    return right, down


def test_depth_of_a_wall_and_the_ground_is_analytic(renderer: Renderer) -> None:
    view = renderer.render(np.eye(4), PanelSet.of([wall(8.0)]))
    _, down = rays()
    with np.errstate(divide="ignore"):
        ground = np.where(down > 0, HEIGHT / down, np.inf)
    top = -(4.0 - HEIGHT) / 8.0
    expected = np.where(down < top, np.inf, np.minimum(ground, 8.0))
    edges = (np.abs(down - top) < 0.01) | (np.abs(down - HEIGHT / 8.0) < 0.01)
    rows = ~edges
    assert np.allclose(view.depth[rows], expected[rows, None], rtol=1e-6)
    assert (view.labels[rows][np.isinf(expected[rows])] == Label.SKY).all()
    assert (view.labels[rows][expected[rows] == 8.0] == Label.BUILDING).all()


def test_depth_of_a_slanted_wall_is_analytic(renderer: Renderer) -> None:
    view = renderer.render(np.eye(4), PanelSet.of([wall(8.0, top=30.0, slant=3.0)]))
    right, down = rays()
    # the wall is x = 8 - y / 4, and y = -right * x
    expected = 8.0 / (1.0 - right / 4.0)
    above = down < 0.0
    assert np.allclose(view.depth[above], expected[None], rtol=1e-6)


def test_the_nearer_wall_hides_the_farther_but_not_its_top(renderer: Renderer) -> None:
    far, near = wall(12.0, top=7.0), wall(6.0, top=3.0)._replace(label=Label.WALL)
    for panels in ([far, near], [near, far]):
        view = renderer.render(np.eye(4), PanelSet.of(panels))
        column = view.labels[:, 80]
        order = [int(label) for label in column[np.r_[True, np.diff(column) != 0]]]
        assert order == [Label.SKY, Label.BUILDING, Label.WALL, Label.ROAD]


def test_a_see_through_texture_shows_what_is_behind() -> None:
    builder = AtlasBuilder()
    builder.add(np.full((16, 16, 3), 200, np.uint8), 1.0)
    half = np.zeros((16, 16, 4), np.uint8)
    half[:, :8] = 255
    builder.add(half, 1.0)
    layer = GroundLayer(
        0, 0, np.zeros((8, 8), np.uint8), np.ones((8, 8), np.float32), (-20.0, 20.0), 0.2, 0.2
    )
    renderer = Renderer(builder.build(), layer, sunny_morning(0), CAMERA, HEIGHT)
    screen = wall(5.0, top=9.0)._replace(
        texture=1, window=(0.0, 16.0, 0.0, 16.0), label=Label.FENCE
    )
    behind = wall(9.0, top=20.0)._replace(window=(0.0, 16.0, 0.0, 16.0))
    view = renderer.render(np.eye(4), PanelSet.of([behind, screen]))
    row = view.depth[50]
    assert np.allclose(row[5:70], 5.0)
    assert np.allclose(row[90:155], 9.0)


def test_views_agree_when_warped_by_depth_and_pose(renderer: Renderer) -> None:
    panels = PanelSet.of([wall(9.0, top=12.0), wall(14.0, top=12.0, slant=4.0)])
    here, there = np.eye(4), pose_from_xy_yaw(0.8, 0.5, 0.12)
    first, second = renderer.render(here, panels), renderer.render(there, panels)
    u, v, depth = project(first.depth, here, there)
    inside = (u > 1) & (u < CAMERA.width - 2) & (v > 1) & (v < CAMERA.height - 2)
    maps = u.astype(np.float32), v.astype(np.float32)
    seen = cv2.remap(second.image, *maps, cv2.INTER_LINEAR).astype(float)
    seen_depth = cv2.remap(second.depth, *maps, cv2.INTER_NEAREST)
    inside &= np.abs(seen_depth - depth) < 0.05 * depth  # hidden from there
    assert inside.mean() > 0.4
    difference = np.abs(seen - first.image)[inside]
    assert np.median(difference) < 2.0
    assert np.percentile(difference, 95) < 8.0


def project(
    depth: np.ndarray, here: Pose, there: Pose
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels and depth, seen from ``there``, of what ``here`` sees at each pixel."""
    right, down = rays()
    x, y = np.meshgrid(right, down)
    points = np.stack([x * depth, y * depth, depth, np.ones_like(depth)], axis=-1)
    finite = np.isfinite(depth)
    points[~finite] = np.nan
    move = inverse(there @ BASE_T_CAMERA) @ here @ BASE_T_CAMERA
    moved = points @ move.T
    k = CAMERA.matrix
    with np.errstate(invalid="ignore"):
        u = k[0, 0] * moved[..., 0] / moved[..., 2] + k[0, 2]
        v = k[1, 1] * moved[..., 1] / moved[..., 2] + k[1, 2]
    return u, v, moved[..., 2]


def test_a_tilted_camera_is_refused(renderer: Renderer) -> None:
    tilted = np.eye(4)
    tilted[:3, :3] = cv2.Rodrigues(np.array([0.0, 0.1, 0.0]))[0]
    with pytest.raises(ValueError, match="level"):
        renderer.render(tilted, PanelSet.of([]))
