"""What can be chosen about a simulated drive; every value has a default."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vpr.config import Fraction, NonNegative, Positive
from vpr.records import CameraModel


class SimulationConfig(BaseModel):
    """Camera, drive and sensors of a simulated recording. SI units, frames as in REP-103."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_width: int = Field(default=512, ge=64, le=1920, description="px")
    image_height: int = Field(default=384, ge=48, le=1080, description="px")
    horizontal_fov: float = Field(default=85.0, gt=20.0, lt=130.0, description="degrees")
    camera_height: Positive = 1.5  # m above the ground
    image_rate: Positive = 6.0  # Hz; 0.8 m between images at the default speed
    image_noise: NonNegative = 1.0  # standard deviation, grey levels
    image_format: Literal["compressed", "raw"] = "compressed"
    jpeg_quality: int = Field(default=55, ge=10, le=100)
    depth: bool = False  # also record depth images (16UC1, mm)
    labels: bool = False  # also record label images (mono8, Cityscapes train ids)

    laps: int = Field(default=2, ge=1, le=10)
    tail: NonNegative = 8.0  # m driven beyond the last lap
    speed: Positive = 5.0  # m/s on straight streets, less in bends
    lateral_sway: NonNegative = 0.3  # m; each lap keeps to its own line within this

    odometry_rate: Positive = 24.0  # Hz; a whole multiple of image_rate
    odometry_step: Positive = 0.5  # m of driving that counts as one step of the noise below
    odometry_rotation_noise: NonNegative = 1e-3  # rad a step (Pillai & Leonard V-B)
    odometry_translation_noise: NonNegative = 5e-2  # m a step (ibid.)
    odometry_yaw_bias: NonNegative = 1e-3  # rad a metre; uneven tyres curve the dead reckoning
    odometry_scale_bias: NonNegative = 0.01  # share; tyres a little larger or smaller than believed

    gps_rate: Positive = 2.0  # Hz
    gps_noise: NonNegative = 1.5  # m, east and north each
    gps_gap_share: Fraction = 0.25  # of the drive, spent between houses without a fix
    gps_latitude: float = Field(
        default=49.0, ge=-89.0, le=89.0, description="degrees, of the map origin"
    )
    gps_longitude: float = Field(default=8.4, ge=-180.0, le=180.0)
    gps_altitude: float = 110.0  # m above the ellipsoid

    start_ns: int = Field(
        default=1_700_000_000_000_000_000, ge=0, description="stamp of the first sample"
    )

    @model_validator(mode="after")
    def _images_meet_odometry(self) -> Self:
        ratio = self.odometry_rate / self.image_rate
        if ratio < 1.0 or abs(ratio - round(ratio)) > 1e-9:
            raise ValueError(
                f"odometry_rate {self.odometry_rate:g} Hz is not a whole multiple of "
                f"image_rate {self.image_rate:g} Hz"
            )
        return self

    @property
    def odometry_per_image(self) -> int:
        """Odometry samples from one image to the next."""
        return round(self.odometry_rate / self.image_rate)

    def camera(self) -> CameraModel:
        """Intrinsics of the simulated camera, known exactly."""
        model = CameraModel.from_horizontal_fov(
            self.image_width, self.image_height, self.horizontal_fov
        )
        return CameraModel(model.width, model.height, model.matrix)
