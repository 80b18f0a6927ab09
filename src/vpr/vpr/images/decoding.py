"""Message payloads to arrays, refusing by name what cannot be read.

The functions take the plain fields of ``sensor_msgs/Image`` and ``sensor_msgs/CompressedImage``
so that they work with rclpy, rosbags or anything else. cv_bridge is not used: the PyPI build
reads 16UC1 wrongly and both it and rosbags-image ignore padded rows.
"""

from __future__ import annotations

from array import array
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.records import Image

Payload: TypeAlias = "bytes | bytearray | memoryview | array[int] | NDArray[np.uint8]"


class ImageError(ValueError):
    """An image that cannot be used; ``reason`` is a short key to count by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# encoding -> (dtype, channels, OpenCV conversion to BGR or grey, None when it is already)
_COLOUR: dict[str, tuple[type[np.generic], int, int | None]] = {
    "bgr8": (np.uint8, 3, None),
    "8UC3": (np.uint8, 3, None),
    "rgb8": (np.uint8, 3, cv2.COLOR_RGB2BGR),
    "bgra8": (np.uint8, 4, cv2.COLOR_BGRA2BGR),
    "rgba8": (np.uint8, 4, cv2.COLOR_RGBA2BGR),
    "mono8": (np.uint8, 1, None),
    "8UC1": (np.uint8, 1, None),
    "mono16": (np.uint16, 1, None),
    "bayer_rggb8": (np.uint8, 1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr8": (np.uint8, 1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg8": (np.uint8, 1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg8": (np.uint8, 1, cv2.COLOR_BayerGB2BGR),
    "yuv422": (np.uint8, 2, cv2.COLOR_YUV2BGR_UYVY),
    "uyvy": (np.uint8, 2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": (np.uint8, 2, cv2.COLOR_YUV2BGR_YUY2),
    "yuyv": (np.uint8, 2, cv2.COLOR_YUV2BGR_YUY2),
}
_DEPTH: dict[str, type[np.generic]] = {
    "16UC1": np.uint16,
    "mono16": np.uint16,
    "32FC1": np.float32,
}


def _rows(
    height: int,
    width: int,
    step: int,
    data: Payload,
    dtype: np.dtype[Any],
    channels: int,
    encoding: str,
) -> NDArray[Any]:
    """View (H, W) or (H, W, C) of the payload with the row padding cut off."""
    if height <= 0 or width <= 0:
        raise ImageError("empty_image", f"image of {width}x{height} pixels is empty")
    row_bytes = width * channels * dtype.itemsize
    if step and step < row_bytes:
        raise ImageError(
            "bad_step", f"step {step} is shorter than a row of {width} {encoding} ({row_bytes})"
        )
    stride = step or row_bytes
    raw = np.frombuffer(data, np.uint8)
    needed = stride * (height - 1) + row_bytes
    if raw.size < needed:
        raise ImageError(
            "truncated_image",
            f"image data has {raw.size} bytes; {width}x{height} {encoding} needs {needed}",
        )
    if raw.size < stride * height:  # the last row may come without its padding
        raw = np.concatenate([raw, np.zeros(stride * height - raw.size, np.uint8)])
    packed = np.ascontiguousarray(raw[: stride * height].reshape(height, stride)[:, :row_bytes])
    pixels = packed.view(dtype)
    return pixels.reshape(height, width, channels) if channels > 1 else pixels


def decode_image(
    encoding: str, height: int, width: int, step: int, data: Payload, is_bigendian: bool = False
) -> Image:
    """Pixels of a ``sensor_msgs/Image`` as (H, W, 3) BGR or (H, W) grey, uint8.

    Raises:
        ImageError: unsupported encoding, empty or truncated data, or a step shorter than a row.
    """
    if encoding not in _COLOUR:
        known = ", ".join(_COLOUR)
        raise ImageError(
            "unsupported_encoding", f"encoding '{encoding}' is not an image ({known} are)"
        )
    scalar, channels, conversion = _COLOUR[encoding]
    dtype = np.dtype(scalar).newbyteorder(">" if is_bigendian else "<")
    pixels = _rows(height, width, step, data, dtype, channels, encoding)
    if scalar is np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if conversion is not None:
        pixels = cv2.cvtColor(pixels, conversion)
    return pixels


def decode_depth(
    encoding: str,
    height: int,
    width: int,
    step: int,
    data: Payload,
    is_bigendian: bool = False,
    scale: float = 0.001,
) -> NDArray[np.float32]:
    """Depth image in metres, (H, W) float32, NaN where there is no measurement.

    Args:
        scale: metres per unit of an integer encoding (16UC1 is millimetres by REP-118).

    Raises:
        ImageError: unsupported encoding, empty or truncated data, or a step shorter than a row.
    """
    if encoding not in _DEPTH:
        known = ", ".join(_DEPTH)
        raise ImageError(
            "unsupported_encoding", f"encoding '{encoding}' is not a depth image ({known} are)"
        )
    scalar = _DEPTH[encoding]
    dtype = np.dtype(scalar).newbyteorder(">" if is_bigendian else "<")
    pixels = _rows(height, width, step, data, dtype, 1, encoding)
    metres = pixels.astype(np.float32)
    if scalar is np.uint16:
        metres *= scale
    metres[~np.isfinite(metres) | (metres <= 0.0)] = np.nan
    return metres


def decode_compressed(data: Payload) -> Image:
    """Pixels of a ``sensor_msgs/CompressedImage`` as (H, W, 3) BGR or (H, W) grey, uint8.

    Raises:
        ImageError: empty data, or data that no decoder takes.
    """
    raw = np.frombuffer(data, np.uint8)
    if raw.size == 0:
        raise ImageError("empty_image", "compressed image is empty")
    pixels = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ImageError("undecodable_image", f"{raw.size} bytes are not a readable JPEG or PNG")
    if pixels.dtype == np.uint16:
        pixels = np.right_shift(pixels, 8).astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR)
    return np.asarray(pixels, dtype=np.uint8)


def grey_of(image: Image) -> Image:
    """(H, W) grey version of a BGR or grey image."""
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))


def colour_of(image: Image) -> Image:
    """(H, W, 3) BGR version of a BGR or grey image."""
    return image if image.ndim == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
