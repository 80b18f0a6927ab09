"""Light of one time of day: sun, sky, exposure and colour."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.simulation.panels import PanelSet
from vpr.simulation.textures import cloud_noise

SKY_SIZE = (96, 720)  # rows from 60 degrees up to the horizon, columns around the compass
SKY_TOP = np.radians(60.0)


@dataclass(frozen=True)
class Lighting:
    """Light on the world.

    ``sun_azimuth`` is where the sun stands (radians from map x), ``sun`` and ``ambient`` are BGR
    intensities (1 shows a texture as drawn), ``sky`` a (rows, columns, 3) float32 panorama of
    0..255, ``haze`` metres after which 63 % of a colour is lost to the horizon, ``vignette`` the
    light lost in the image's corners.
    """

    sun_azimuth: float
    sun_elevation: float
    sun: NDArray[np.float64]
    ambient: NDArray[np.float64]
    sky: NDArray[np.float32]
    haze: float
    vignette: float

    def on(self, panels: PanelSet) -> NDArray[np.float32]:
        """(N, 3) BGR factor of every panel: its tint under the sun (Lambert) and the sky."""
        towards_sun = np.array([np.cos(self.sun_azimuth), np.sin(self.sun_azimuth)])
        facing = np.maximum(panels.normals() @ towards_sun, 0.0) * np.cos(self.sun_elevation)
        sunlit = panels.shaded * facing + (1.0 - panels.shaded) * 0.6
        factor = panels.tint * (self.ambient + sunlit[:, None] * self.sun)
        return np.asarray(factor, np.float32)

    def on_ground(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """BGR factors of sunlit ground and of ground in shadow."""
        lit = self.ambient + self.sun * np.sin(self.sun_elevation)
        return lit.astype(np.float32), self.ambient.astype(np.float32)


def sunny_morning(seed: int) -> Lighting:
    """Low warm sun, hard shadows, clear sky: the first lap."""
    rng = np.random.default_rng([seed, 301])
    return Lighting(
        sun_azimuth=_morning_azimuth(seed),
        sun_elevation=np.radians(float(rng.uniform(32.0, 42.0))),
        sun=np.array([0.50, 0.60, 0.66]),
        ambient=np.array([0.66, 0.62, 0.60]),
        sky=_sky(rng, zenith=(225, 170, 110), horizon=(240, 225, 205), cloudiness=0.35),
        haze=260.0,
        vignette=0.12,
    )


def overcast_evening(seed: int) -> Lighting:
    """Dull, darker, bluish light with the sun's rest from another side: the second lap."""
    rng = np.random.default_rng([seed, 302])
    return Lighting(
        sun_azimuth=_morning_azimuth(seed) + float(rng.uniform(1.8, 3.0)),
        sun_elevation=np.radians(float(rng.uniform(22.0, 30.0))),
        sun=np.array([0.16, 0.20, 0.26]),
        ambient=np.array([0.66, 0.58, 0.52]),
        sky=_sky(rng, zenith=(150, 140, 132), horizon=(185, 178, 176), cloudiness=0.9),
        haze=170.0,
        vignette=0.28,
    )


def night(seed: int) -> Lighting:
    """Hardly any light, from nowhere: what a camera with little sensitivity sees after dark."""
    rng = np.random.default_rng([seed, 303])
    return Lighting(
        sun_azimuth=_morning_azimuth(seed) + float(rng.uniform(1.8, 3.0)),
        sun_elevation=np.radians(60.0),
        sun=np.array([0.05, 0.04, 0.03]),
        ambient=np.array([0.16, 0.12, 0.09]),
        sky=_sky(rng, zenith=(26, 14, 8), horizon=(48, 34, 26), cloudiness=0.5),
        haze=60.0,
        vignette=0.45,
    )


def _morning_azimuth(seed: int) -> float:
    return float(np.random.default_rng([seed, 300]).uniform(-np.pi, np.pi))


def _sky(
    rng: np.random.Generator,
    zenith: tuple[int, int, int],
    horizon: tuple[int, int, int],
    cloudiness: float,
) -> NDArray[np.float32]:
    rows, columns = SKY_SIZE
    height = np.linspace(1.0, 0.0, rows)[:, None, None]
    clear = height * np.array(zenith) + (1.0 - height) * np.array(horizon)
    clouds = cloud_noise(rng, rows, columns, coarsest=48)
    clouds[:, -60:] += np.linspace(0, 1, 60) * (clouds[:, :1] - clouds[:, -60:])  # close the ring
    cover = np.clip((clouds - 0.62 + 0.3 * cloudiness) * 2.5, 0.0, 1.0)[..., None]
    white = np.array(horizon) * (0.85 + 0.3 * clouds[..., None])
    sky = np.clip(clear * (1.0 - cover) + white * cover, 0.0, 255.0)
    return np.asarray(cv2.GaussianBlur(sky, (0, 0), 1.0), np.float32)
