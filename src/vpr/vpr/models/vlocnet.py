"""VLocNet++: global pose, odometry and semantics of consecutive images by one network.

Radwan, Valada, Burgard, "Incorporating Semantic and Geometric Priors in Deep Pose Regression"
(VLocNet++), 2018. Blocks are named as there: Res1 to Res5, the units of a block a, b, c, ...

The pose stream and the odometry stream share Res1 to Res3 (the paper says that they share, not how
far). Frames: the pose is map_T_camera, the motion previous_T_current, both of the camera's optical
frame; metres and quaternions x y z w.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from vpr.models.vlocnet_lite0 import Lite0Res1, lite0_units, name_in_lite0

Task = Literal["pose", "odometry", "segmentation"]
TASKS: tuple[Task, ...] = ("pose", "odometry", "segmentation")
FC1 = 1024  # values of fc1, as in the paper
EXPANSION = 4  # a unit's output channels over those of its 3x3 convolution
LARGEST_DILATION = 16
DEPTH_CHANNELS = 32
NEAREST_DEPTH = 0.1  # m
FIRST_DEPTH = 4.0  # m; what an untrained depth branch predicts
BLOCKS = ("res1", "res2", "res3", "res4", "res5")
IMAGE_STRIDE = 32  # px of the image a cell of Res5 stands for


class VLocNetConfig(BaseModel):
    """Size of the network. The defaults are the paper's; ``SMALL`` runs on a CPU."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_width: int = Field(default=224, ge=32, multiple_of=IMAGE_STRIDE)  # px
    image_height: int = Field(default=224, ge=32, multiple_of=IMAGE_STRIDE)  # px
    width: int = Field(
        default=64, ge=4, multiple_of=4
    )  # channels of Res1; Res5 has 32 times as many
    units: tuple[int, int, int, int] = (3, 4, 6, 3)  # residual units of Res2 to Res5
    tasks: tuple[Task, ...] = TASKS
    classes: int = Field(default=19, ge=2)
    fusion: Literal["adaptive", "concatenation"] = "adaptive"
    # units of the pose and odometry streams: residual ones of ``width`` and ``units``, or those of
    # EfficientNet-Lite0, for which ImageNet weights are embedded
    backbone: Literal["residual", "efficientnet_lite0"] = "residual"

    def stage_channels(self, stage: int) -> int:
        """Output channels of Res2 (stage 2) to Res5."""
        return self.width * EXPANSION << (stage - 2)


SMALL = VLocNetConfig(image_width=128, image_height=96, width=16, units=(1, 2, 3, 2))


@dataclass(frozen=True)
class Memory:
    """What a step leaves for the next one."""

    pose_res5a: Tensor | None
    odometry_res4: Tensor | None
    segmentation_res3: Tensor | None
    segmentation_res4: Tensor | None


@dataclass(frozen=True)
class Prediction:
    """Answer for a batch of B images; a task that the network does not have is None."""

    position: Tensor | None  # (B, 3) m, of map_T_camera
    rotation: Tensor | None  # (B, 4) unit quaternion
    embedding: Tensor | None  # (B, 1024) fc1 of the pose stream
    motion_position: Tensor | None  # (B, 3) m, of previous_T_current; None on a first frame
    motion_rotation: Tensor | None  # (B, 4) unit quaternion
    logits: Tensor | None  # (B, classes, H, W)
    depth: Tensor | None  # (B, 1, H / 8, W / 8) m, along the optical axis


class ResidualUnit(nn.Module):
    """Bottleneck unit with ELU; with two dilations a multi-scale unit of AdapNet.

    The multi-scale unit splits the 3x3 convolution into parallel ones of half the channels and
    another dilation each: more scales for no more parameters.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, dilations: tuple[int, ...] = (1,)
    ) -> None:
        super().__init__()
        middle = channels_out // EXPANSION
        each = middle // len(dilations)
        self.conv1 = nn.Conv2d(channels_in, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.ModuleList(
            nn.Conv2d(middle, each, 3, stride, padding=d, dilation=d, bias=False) for d in dilations
        )
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            convolution = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C', h / stride, w / stride)."""
        inner = functional.elu(self.bn1(self.conv1(x)))
        inner = torch.cat([convolution(inner) for convolution in self.conv2], dim=1)
        inner = self.bn3(self.conv3(functional.elu(self.bn2(inner))))
        return functional.elu(inner + self.downsample(x))


class Block(nn.ModuleDict):
    """Res2 to Res5: units a, b, c, ..., of which the first strides; ``channels`` has each one's."""

    def __init__(self, units: Iterable[nn.Module], channels: Iterable[int]) -> None:
        super().__init__({chr(ord("a") + index): unit for index, unit in enumerate(units)})
        self.channels = dict(zip(self, channels, strict=True))

    @property
    def channels_out(self) -> int:
        """Of the last unit."""
        return list(self.channels.values())[-1]

    def forward(self, x: Tensor, after: str = "", until: str = "") -> Tensor:
        """Run the units behind ``after`` up to and with ``until``; all of them by default."""
        for name, unit in self.items():
            if name > after and (not until or name <= until):
                x = unit(x)
        return x


def residual_block(
    channels_in: int,
    channels_out: int,
    units: int,
    stride: int,
    dilations: Mapping[int, tuple[int, ...]] | None = None,
) -> Block:
    """Residual units, multi-scale where ``dilations`` has their index."""
    made = [
        ResidualUnit(
            channels_out if index else channels_in,
            channels_out,
            1 if index else stride,
            (dilations or {}).get(index, (1,)),
        )
        for index in range(units)
    ]
    return Block(made, [channels_out] * units)


def stream_block(config: VLocNetConfig, stage: int, views: int = 1) -> Block:
    """Res2 to Res5 of the pose and odometry streams; behind ``views`` concatenated images."""
    if config.backbone == "efficientnet_lite0":
        return Block(*lite0_units(stage, views))
    channels_in = config.width if stage == 2 else config.stage_channels(stage - 1)
    return residual_block(
        views * channels_in,
        config.stage_channels(stage),
        config.units[stage - 2],
        1 if stage == 2 else 2,
    )


class AdaptiveFusion(nn.Module):
    """Equation 1: one map weighted, concatenated with another, and pooled non-linearly.

    The paper gives w the dimensions of z and calls its product one of channels with scalars; here
    it is a scalar a channel, which does not tie the network to an image size. W is 1x1 and begins
    as the first map alone, so that fusing disturbs no stream that was trained before.
    """

    def __init__(self, channels: int, other_channels: int) -> None:
        super().__init__()
        self.weight_a = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.weight_b = nn.Parameter(torch.ones(1, other_channels, 1, 1))
        self.pooling = nn.Conv2d(channels + other_channels, channels, 1)
        _begin_as_first(self.pooling)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, C, h, w) and (B, C', h, w) to (B, C, h, w)."""
        weighted = torch.cat([self.weight_a * a, self.weight_b * b], dim=1)
        return functional.relu(self.pooling(weighted))


class ConcatenationFusion(nn.Module):
    """What equation 1 is compared with: maps concatenated, a linear layer to the channels after."""

    def __init__(self, channels: int, other_channels: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels + other_channels, channels, 1)
        _begin_as_first(self.projection)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, C, h, w) and (B, C', h, w) to (B, C, h, w)."""
        projected: Tensor = self.projection(torch.cat([a, b], dim=1))
        return projected


def _begin_as_first(convolution: nn.Conv2d) -> None:
    nn.init.dirac_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)


FUSIONS = {"adaptive": AdaptiveFusion, "concatenation": ConcatenationFusion}


class Regressor(nn.Module):
    """Global average pooling and fc1, fc2 (translation), fc3 (rotation) behind Res5.

    fc2 speaks in ``scale`` metres around ``offset``, set from the training poses.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, FC1)
        self.fc2 = nn.Linear(FC1, 3)
        self.fc3 = nn.Linear(FC1, 4)
        self.register_buffer("offset", torch.zeros(3))
        self.register_buffer("scale", torch.ones(()))
        with torch.no_grad():
            self.fc3.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Res5 (B, C, h, w) to position (B, 3) m, unit quaternion (B, 4) and fc1 (B, 1024)."""
        embedding = functional.elu(self.fc1(x.mean(dim=(2, 3)))).float()
        with torch.autocast(x.device.type, enabled=False):
            position = self.fc2(embedding) * self.scale + self.offset
            return position, functional.normalize(self.fc3(embedding), dim=1, eps=1e-6), embedding


class SharedTrunk(nn.Module):
    """Res1 to Res3 of the pose and odometry streams, which share them."""

    def __init__(self, config: VLocNetConfig) -> None:
        super().__init__()
        lite0 = config.backbone == "efficientnet_lite0"
        self.res1: nn.Module = Lite0Res1() if lite0 else Res1(config.width)
        self.res2, self.res3 = stream_block(config, 2), stream_block(config, 3)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, C, H / 8, W / 8)."""
        x: Tensor = self.res3(self.res2(self.res1(image)))
        return x


class Res1(nn.Module):
    """7x7 convolution and maximum pooling: the image at a quarter of its size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, C, H / 4, W / 4)."""
        return functional.max_pool2d(functional.elu(self.bn1(self.conv1(image))), 3, 2, padding=1)


class PoseStream(nn.Module):
    """Res4, Res5 and the regressor of the global pose.

    Semantic features come in behind Res4c, Res5a of the previous step behind Res5a.
    """

    def __init__(self, config: VLocNetConfig) -> None:
        super().__init__()
        fusion = FUSIONS[config.fusion]
        self.res4, self.res5 = stream_block(config, 4), stream_block(config, 5)
        res5a = self.res5.channels["a"]
        self.temporal_fusion = fusion(res5a, res5a)
        self.regressor = Regressor(self.res5.channels_out)
        self.semantic_fusion = None
        if "segmentation" in config.tasks:
            self.semantic_fusion = fusion(self.res4.channels["c"], config.stage_channels(5))

    def forward(
        self, trunk: Tensor, semantics: Tensor | None, previous_res5a: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """The regressor's answer, and Res5a for the next step; a first frame fuses its own."""
        x = self.res4(trunk, until="c")
        if semantics is not None and self.semantic_fusion is not None:
            x = self.semantic_fusion(x, semantics)
        x = self.res4(x, after="c")
        res5a: Tensor = self.res5(x, until="a")
        fused = self.temporal_fusion(res5a, res5a if previous_res5a is None else previous_res5a)
        return self.regressor(self.res5(fused, after="a")), res5a


class OdometryStream(nn.Module):
    """Siamese up to Res4; both images' maps concatenated go through Res5 to the regressor."""

    def __init__(self, config: VLocNetConfig) -> None:
        super().__init__()
        self.res4, self.res5 = stream_block(config, 4), stream_block(config, 5, views=2)
        self.regressor = Regressor(self.res5.channels_out)

    def forward(self, res4: Tensor, previous_res4: Tensor) -> tuple[Tensor, Tensor]:
        """Motion previous_T_current: position (B, 3) m and unit quaternion (B, 4)."""
        x = self.res5(torch.cat([previous_res4, res4], dim=1))
        position, rotation, _ = self.regressor(x)
        return position, rotation


class DepthBranch(nn.Module):
    """Depth for warping, from the shared trunk, which it reads without shaping it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, DEPTH_CHANNELS, 3, padding=1)
        self.conv2 = nn.Conv2d(DEPTH_CHANNELS, 1, 3, padding=1)

    def forward(self, trunk: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 1, h, w) metres."""
        logarithm = self.conv2(functional.elu(self.conv1(trunk.detach()))).float()
        return NEAREST_DEPTH + FIRST_DEPTH * torch.exp(logarithm.clamp(-5.0, 5.0))


class SegmentationStream(nn.Module):
    """AdapNet's encoder, down-sampling 16 times, and its decoder with skip refinement.

    The previous step's maps, warped into this view, come in at the ends of Res3 and Res4.
    """

    def __init__(self, config: VLocNetConfig) -> None:
        super().__init__()
        c1, units, fusion = config.width, config.units, FUSIONS[config.fusion]
        c2, c3, c4, c5 = (config.stage_channels(stage) for stage in (2, 3, 4, 5))
        self.res1 = Res1(c1)
        self.res2 = residual_block(c1, c2, units[0], 1)
        self.res3 = residual_block(c2, c3, units[1], 2, {units[1] - 1: (1, 2)})
        self.res4 = residual_block(c3, c4, units[2], 2, _growing_dilations(1, units[2]))
        self.res5 = residual_block(c4, c5, units[3], 1, _growing_dilations(2, units[3], first=0))
        self.fusion3, self.fusion4 = fusion(c3, c3), fusion(c4, c4)
        middle = c2
        self.deconv1 = nn.ConvTranspose2d(c5, middle, 4, 2, padding=1)
        self.skip3 = nn.Conv2d(c3, middle, 1)
        self.deconv2 = nn.ConvTranspose2d(middle, middle, 4, 2, padding=1)
        self.skip2 = nn.Conv2d(c2, middle, 1)
        self.deconv3 = nn.ConvTranspose2d(middle, config.classes, 8, 4, padding=2)

    def encode(
        self, image: Tensor, warped_res3: Tensor | None, warped_res4: Tensor | None, fused: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Res2 to Res5 of an image, maps of the previous step fused in; a first frame's own."""
        res2 = self.res2(self.res1(image))
        res3 = x = self.res3(res2)
        if fused:
            x = self.fusion3(res3, res3 if warped_res3 is None else warped_res3)
        res4 = x = self.res4(x)
        if fused:
            x = self.fusion4(res4, res4 if warped_res4 is None else warped_res4)
        return res2, res3, res4, self.res5(x)

    def decode(self, res2: Tensor, res3: Tensor, res5: Tensor) -> Tensor:
        """Logits (B, classes, H, W)."""
        x = functional.elu(self.deconv1(res5) + self.skip3(res3))
        x = functional.elu(self.deconv2(x) + self.skip2(res2))
        logits: Tensor = self.deconv3(x)
        return logits


def _growing_dilations(near: int, units: int, first: int = 1) -> dict[int, tuple[int, ...]]:
    """Dilations (near, far) of the units from ``first`` on, far doubling from unit to unit."""
    return {
        unit: (near, min(near * 2 ** (unit - first + 1), LARGEST_DILATION))
        for unit in range(first, units)
    }


class VLocNet(nn.Module):
    """The whole network; images go through ``step`` one after another."""

    camera: Tensor

    def __init__(self, config: VLocNetConfig) -> None:
        super().__init__()
        self.config = config
        tasks = config.tasks
        self.trunk = SharedTrunk(config)
        self.pose = PoseStream(config) if "pose" in tasks else None
        self.odometry = OdometryStream(config) if "odometry" in tasks else None
        self.segmentation = SegmentationStream(config) if "segmentation" in tasks else None
        warps = self.odometry is not None and self.segmentation is not None
        self.depth = DepthBranch(self.trunk.res3.channels_out) if warps else None
        # fx / W, fy / H, cx / W, cy / H with the corner of the image as origin
        self.register_buffer("camera", torch.tensor([1.0, 1.0, 0.5, 0.5]))

    def step(
        self, image: Tensor, memory: Memory | None = None, fused: bool = True
    ) -> tuple[Prediction, Memory]:
        """Predict for images (B, 3, H, W), RGB in -1..1, given what the step before left.

        Without a memory it is a first frame: no motion, and its own maps stand for the previous.
        ``fused`` False keeps the streams apart, as they are trained first.
        """
        trunk = self.trunk(image)
        motion, odometry_res4 = self._motion(trunk, memory)
        depth = None if self.depth is None else self.depth(trunk)
        semantics, logits, res3, res4 = self._semantics(image, memory, motion, depth, fused)
        position = rotation = embedding = res5a = None
        if self.pose is not None:
            previous = None if memory is None else memory.pose_res5a
            answer, res5a = self.pose(trunk, semantics if fused else None, previous)
            position, rotation, embedding = answer
        moved, turned = motion or (None, None)
        prediction = Prediction(position, rotation, embedding, moved, turned, logits, depth)
        return prediction, Memory(res5a, odometry_res4, res3, res4)

    def _motion(
        self, trunk: Tensor, memory: Memory | None
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
        if self.odometry is None:
            return None, None
        res4 = self.odometry.res4(trunk)
        if memory is None or memory.odometry_res4 is None:
            return None, res4
        return self.odometry(res4, memory.odometry_res4), res4

    def _semantics(
        self,
        image: Tensor,
        memory: Memory | None,
        motion: tuple[Tensor, Tensor] | None,
        depth: Tensor | None,
        fused: bool,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        if self.segmentation is None:
            return None, None, None, None
        warped3 = warped4 = None
        if fused and memory is not None and motion is not None and depth is not None:
            assert memory.segmentation_res3 is not None
            assert memory.segmentation_res4 is not None
            warped3 = warp(memory.segmentation_res3, depth, *motion, self.camera)
            warped4 = warp(memory.segmentation_res4, depth, *motion, self.camera)
        res2, res3, res4, res5 = self.segmentation.encode(image, warped3, warped4, fused)
        return res5, self.segmentation.decode(res2, res3, res5), res3, res4


def warp(
    previous: Tensor, depth: Tensor, position: Tensor, rotation: Tensor, camera: Tensor
) -> Tensor:
    """Maps of the previous view as the current view would have them (Sec. II-A, differentiable).

    Args:
        previous: (B, C, h, w) maps of the previous image.
        depth: (B, 1, h', w') of the current image, m.
        position, rotation: previous_T_current, (B, 3) m and (B, 4) unit quaternion.
        camera: (4,) as ``VLocNet.camera``.

    Returns:
        (B, C, h, w); zero where the point was out of the previous view or behind it.
    """
    batch, _, height, width = previous.shape
    with torch.autocast(previous.device.type, enabled=False):  # half precision is pixels off
        metres = functional.adaptive_avg_pool2d(depth, (height, width)).reshape(batch, 1, -1)
        fx, fy, cx, cy = camera.unbind()
        v, u = torch.meshgrid(
            (torch.arange(height, device=depth.device) + 0.5) / height,
            (torch.arange(width, device=depth.device) + 0.5) / width,
            indexing="ij",
        )
        rays = torch.stack([(u - cx) / fx, (v - cy) / fy, torch.ones_like(u)]).reshape(1, 3, -1)
        points = rotation_matrix(rotation) @ (rays * metres) + position[:, :, None]
        ahead = points[:, 2:].clamp(min=NEAREST_DEPTH)
        x, y = fx * points[:, :1] / ahead + cx, fy * points[:, 1:2] / ahead + cy
        seen = 2.0 * torch.cat([x, y], dim=1) - 1.0
        seen = torch.where(points[:, 2:] > NEAREST_DEPTH, seen, torch.full_like(seen, 2.0))
        grid = seen.transpose(1, 2).reshape(batch, height, width, 2)
        return functional.grid_sample(previous.float(), grid, align_corners=False)


def rotation_matrix(quaternion: Tensor) -> Tensor:
    """(B, 3, 3) of unit quaternions (B, 4)."""
    x, y, z, w = quaternion.unbind(dim=1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def begin_with(network: VLocNet, state: Mapping[str, Tensor]) -> int:
    """Take a classifier's weights into every stream where they fit.

    ``state`` is of a torchvision ResNet-50, or of an EfficientNet-Lite0 where that is the backbone.
    The parallel convolutions of multi-scale units, and the first one behind a concatenation, keep
    their random start.

    Returns:
        how many tensors were taken.
    """
    lite0 = network.config.backbone == "efficientnet_lite0"
    name_of = name_in_lite0 if lite0 else _name_in_resnet50
    taken = 0
    for name, tensor in network.state_dict().items():
        parts = name.split(".")
        block = next((part for part in parts if part in BLOCKS), None)
        if block is None:
            continue
        given = state.get(name_of(block, parts[parts.index(block) + 1 :]))
        if given is not None and given.shape == tensor.shape:
            tensor.copy_(given)
            taken += 1
    return taken


def _name_in_resnet50(block: str, rest: list[str]) -> str:
    if block == "res1":
        return ".".join(rest)
    unit = [part for i, part in enumerate(rest) if not (rest[i - 1] == "conv2" and part == "0")]
    return ".".join([f"layer{int(block[-1]) - 1}", str(ord(unit[0]) - ord("a")), *unit[1:]])
