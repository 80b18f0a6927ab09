"""A small town, everything in it drawn from one seed, and its views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vpr.records import CameraModel, Image, Pose
from vpr.simulation import ground as ground_plane
from vpr.simulation.atlas import AtlasBuilder
from vpr.simulation.furniture import furnish
from vpr.simulation.ground import Ground, draw_ground, shadows_on
from vpr.simulation.houses import build_houses, make_stock
from vpr.simulation.lighting import Lighting, overcast_evening, sunny_morning
from vpr.simulation.panels import PanelSet
from vpr.simulation.renderer import GroundLayer, RenderedView, Renderer
from vpr.simulation.textures import asphalt_grain
from vpr.simulation.town import TownPlan, plan_town
from vpr.simulation.traffic import Traffic, make_traffic, make_traffic_stock


@dataclass(frozen=True)
class World:
    """A town as one camera sees it, lap by lap.

    The map frame has x east, y north and its z = 0 plane at the camera's height, so that poses
    are planar. ``renderers`` and ``traffic`` hold one entry a lap, the last serving all later laps.
    """

    seed: int
    plan: TownPlan
    fixed: PanelSet
    renderers: tuple[Renderer, ...]
    traffic: tuple[Traffic, ...]

    def view(self, pose: Pose, time: float, lap: int, ahead: Pose | None = None) -> RenderedView:
        """What the camera at map_T_base sees ``time`` seconds into the drive.

        ``ahead`` is the pose of a car driving in front, on laps that have one.
        """
        moving = self.traffic[self._index(lap)].panels(time, pose, ahead)
        return self.renderers[self._index(lap)].render(pose, self.fixed + moving)

    def lighting(self, lap: int) -> Lighting:
        """Light of a lap."""
        return self.renderers[self._index(lap)].lighting

    def _index(self, lap: int) -> int:
        return min(lap, len(self.renderers) - 1)


def build_world(
    seed: int,
    camera: CameraModel,
    camera_height: float,
    lights: Sequence[Callable[[int], Lighting]] = (sunny_morning, overcast_evening),
) -> World:
    """Plan, build and light the town of a seed: the same seed gives the same town.

    Args:
        lights: of each of the two laps.
    """
    rng = np.random.default_rng([seed, 100])
    plan = plan_town(seed)
    builder = AtlasBuilder()
    houses = build_houses(rng, plan, make_stock(rng, builder))
    furniture, trees = furnish(rng, plan, builder)
    traffic_stock = make_traffic_stock(rng, builder)
    traffic = tuple(make_traffic(seed, lap, plan, traffic_stock) for lap in (0, 1))
    ground = draw_ground(seed, plan)
    ground_texture = builder.add(ground.texture, ground_plane.SCALE)
    grain = builder.add(asphalt_grain(rng, 384), 96.0)
    solid = PanelSet.of([p for p in houses if p.bottom == 0.0 or p.top > 4.0] + trees)
    atlas = builder.build()
    renderers = tuple(
        Renderer(
            atlas,
            _ground_layer(ground, ground_texture, grain, solid, light),
            light,
            camera,
            camera_height,
        )
        for light in (make(seed) for make in lights)
    )
    return World(seed, plan, PanelSet.of(houses + furniture), renderers, traffic)


def _ground_layer(
    ground: Ground, texture: int, grain: int, solid: PanelSet, light: Lighting
) -> GroundLayer:
    return GroundLayer(
        texture,
        grain,
        ground.labels,
        shadows_on(ground, solid, light),
        (ground.extent[0], ground.extent[3]),
        ground_plane.SCALE,
        ground_plane.SHADOW_SCALE,
    )


def photograph(
    view: RenderedView, lighting: Lighting, rng: np.random.Generator, noise: float
) -> Image:
    """The rendered image as a lens and a sensor give it: vignette and noise (grey levels)."""
    rows, columns = view.depth.shape
    y, x = np.linspace(-1.0, 1.0, rows)[:, None], np.linspace(-1.0, 1.0, columns)[None]
    falloff = (1.0 - lighting.vignette * (x**2 + y**2) / 2.0).astype(np.float32)[..., None]
    seen = rng.standard_normal(view.image.shape, dtype=np.float32)
    seen *= noise
    seen += view.image * falloff
    np.clip(seen, 0.0, 255.0, out=seen)
    return np.asarray(np.rint(seen), np.uint8)
