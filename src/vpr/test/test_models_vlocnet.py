"""The network: shapes, the paper's blocks, fusion, warping, first frames."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from vpr.models.efficientnet_lite0 import EfficientNetLite0, embedded_weights_file
from vpr.models.vlocnet import (
    SMALL,
    AdaptiveFusion,
    ConcatenationFusion,
    Memory,
    OdometryStream,
    Prediction,
    VLocNet,
    VLocNetConfig,
    begin_with,
    rotation_matrix,
    warp,
)
from vpr.models.weights import read_state_dict

torch.set_num_threads(1)  # two would wait for each other on a busy machine

TINY = VLocNetConfig(image_width=64, image_height=32, width=4, units=(1, 1, 4, 2), classes=5)


def network(config: VLocNetConfig = TINY) -> VLocNet:
    torch.manual_seed(0)
    return VLocNet(config).eval()


def images(config: VLocNetConfig, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, config.image_height, config.image_width, generator=generator)


def two_steps(net: VLocNet) -> tuple[Prediction, Prediction, Memory]:
    first, memory = net.step(images(net.config))
    second, memory = net.step(1.0 - images(net.config), memory)
    return first, second, memory


def test_all_tasks_answer_and_a_first_frame_has_no_motion() -> None:
    first, second, memory = two_steps(network())
    assert first.motion_position is None
    assert second.motion_position is not None
    assert second.position is not None
    assert second.rotation is not None
    assert second.logits is not None
    assert second.depth is not None
    assert second.embedding is not None
    assert second.motion_rotation is not None
    assert second.position.shape == second.motion_position.shape == (2, 3)
    for rotation in (second.rotation, second.motion_rotation):
        assert torch.allclose(rotation.norm(dim=1), torch.ones(2))
    assert second.logits.shape == (2, 5, 32, 64)
    assert second.depth.shape == (2, 1, 4, 8)
    assert second.embedding.shape == (2, 1024)
    assert memory.segmentation_res4 is not None
    assert memory.segmentation_res4.shape[-2:] == (2, 4)  # 16 times down-sampled


def test_the_whole_network_has_the_layers_of_resnet_50() -> None:
    config = VLocNetConfig(image_width=32, image_height=32)
    net = network(config)
    assert net.pose is not None
    assert isinstance(net.odometry, OdometryStream)
    assert list(net.trunk.res2) == ["a", "b", "c"]
    assert list(net.trunk.res3) == ["a", "b", "c", "d"]
    assert list(net.pose.res4) == ["a", "b", "c", "d", "e", "f"]
    assert list(net.pose.res5) == ["a", "b", "c"]
    regressor = net.pose.regressor
    sizes = [layer.out_features for layer in (regressor.fc1, regressor.fc2, regressor.fc3)]
    assert sizes == [1024, 3, 4]
    assert regressor.fc1.in_features == 2048
    assert net.odometry.res5["a"].conv1.in_channels == 2 * 1024
    with torch.inference_mode():
        prediction, memory = net.step(images(config, 1))
    assert prediction.position is not None
    assert memory.pose_res5a is not None
    assert memory.pose_res5a.shape == (1, 2048, 1, 1)


def test_the_previous_frame_changes_the_pose_and_semantics_too() -> None:
    net = network()
    for fusion in (net.pose.temporal_fusion, net.pose.semantic_fusion):  # type: ignore[union-attr]
        torch.nn.init.normal_(fusion.pooling.weight)  # type: ignore[union-attr,arg-type]
    _, with_memory, _ = two_steps(net)
    alone, _ = net.step(1.0 - images(net.config))
    apart, _ = net.step(1.0 - images(net.config), fused=False)
    assert with_memory.position is not None
    assert alone.position is not None
    assert apart.position is not None
    assert not torch.allclose(with_memory.position, alone.position)
    assert not torch.allclose(alone.position, apart.position)


def test_equation_1() -> None:
    fusion = AdaptiveFusion(2, 3)
    a, b = torch.randn(1, 2, 4, 4), torch.randn(1, 3, 4, 4)
    assert torch.allclose(fusion(a, b), a.clamp(min=0))  # as it begins
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter)
    joined = torch.cat([fusion.weight_a * a, fusion.weight_b * b], dim=1)[0]
    weights = fusion.pooling.weight[:, :, 0, 0]
    assert fusion.pooling.bias is not None
    expected = torch.einsum("oc,chw->ohw", weights, joined) + fusion.pooling.bias[:, None, None]
    assert torch.allclose(fusion(a, b)[0], expected.clamp(min=0), atol=1e-6)
    assert torch.allclose(ConcatenationFusion(2, 3)(a, b), a)


def test_rotation_matrices_are_scipys() -> None:
    quaternions = Rotation.random(5, random_state=0).as_quat()
    ours = rotation_matrix(torch.tensor(quaternions)).numpy()
    np.testing.assert_allclose(ours, Rotation.from_quat(quaternions).as_matrix(), atol=1e-12)


def test_warping_shifts_a_wall_by_the_parallax() -> None:
    """A wall 2 m ahead, the camera 0.5 m further right: what was at u is now a quarter left."""
    previous = torch.rand(1, 3, 8, 16)
    camera = torch.tensor([1.0, 1.0, 0.5, 0.5])
    depth = torch.full((1, 1, 8, 16), 2.0)
    still = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    warped = warp(previous, depth, torch.tensor([[0.5, 0.0, 0.0]]), still, camera)
    assert torch.allclose(warped[..., :12], previous[..., 4:], atol=1e-5)
    assert torch.equal(warped[..., 12:], torch.zeros(1, 3, 8, 4))
    behind = warp(previous, depth, torch.tensor([[0.0, 0.0, -5.0]]), still, camera)
    assert torch.equal(behind, torch.zeros_like(previous))


def test_warping_lets_gradients_through_to_motion_and_depth() -> None:
    position = torch.zeros(1, 3, requires_grad=True)
    depth = torch.full((1, 1, 4, 4), 2.0, requires_grad=True)
    still = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    moved = position + torch.tensor([[0.1, 0.0, 0.0]])
    warp(
        torch.rand(1, 2, 4, 4), depth, moved, still, torch.tensor([1.0, 1.0, 0.5, 0.5])
    ).sum().backward()
    assert position.grad is not None
    assert depth.grad is not None
    assert position.grad.abs().sum() > 0
    assert depth.grad.abs().sum() > 0


@pytest.mark.parametrize("task", ["pose", "odometry", "segmentation"])
def test_a_network_of_one_task_has_that_task_only(task: str) -> None:
    config = TINY.model_copy(update={"tasks": (task,)})
    _, second, _ = two_steps(network(config))
    answered = {
        "pose": second.position is not None,
        "odometry": second.motion_position is not None,
        "segmentation": second.logits is not None,
    }
    assert answered == {name: name == task for name in answered}


def test_the_trunk_is_shared_by_pose_and_odometry() -> None:
    net = network()
    _, second, _ = two_steps(net)
    assert second.motion_position is not None
    second.motion_position.sum().backward()
    assert net.trunk.res1.conv1.weight.grad is not None
    assert net.pose is not None
    assert net.pose.res4["a"].conv1.weight.grad is None


def test_resnet_50_weights_go_where_they_fit() -> None:
    net = network(VLocNetConfig(image_width=32, image_height=32, tasks=("pose",)))
    state = {
        "conv1.weight": torch.ones(64, 3, 7, 7),
        "layer2.3.conv2.weight": torch.full((128, 128, 3, 3), 2.0),
        "layer4.0.downsample.0.weight": torch.full((2048, 1024, 1, 1), 3.0),
        "layer4.0.conv1.weight": torch.ones(1, 1, 1, 1),  # another network's
        "fc.weight": torch.ones(1000, 2048),
    }
    assert begin_with(net, state) == 3
    assert net.pose is not None
    assert net.trunk.res1.conv1.weight.detach().mean() == 1.0
    assert net.trunk.res3["d"].conv2[0].weight.detach().mean() == 2.0
    assert net.pose.res5["a"].downsample[0].weight.detach().mean() == 3.0


def test_efficientnet_lite0_may_be_the_streams() -> None:
    net = network(TINY.model_copy(update={"backbone": "efficientnet_lite0"}))
    encoder = EfficientNetLite0()
    encoder.load_state_dict(read_state_dict(embedded_weights_file()))
    assert begin_with(net, encoder.state_dict()) > 300
    image = images(net.config)
    with torch.inference_mode():
        assert torch.allclose(net.trunk.eval()(image), encoder.eval().early(image, 5), atol=1e-4)
        first, second, _ = two_steps(net)
    assert first.position is not None
    assert second.motion_position is not None
    assert second.logits is not None
    assert net.odometry is not None
    own = net.odometry.res5["a"]._expand_conv
    assert own.in_channels == 2 * encoder._blocks[11]._expand_conv.in_channels


def test_the_small_variant_is_small() -> None:
    count = sum(parameter.numel() for parameter in network(SMALL).parameters())
    assert count < 10_000_000
