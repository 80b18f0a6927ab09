"""The appendix's encoder-decoder, layer for layer."""

import torch
from torch import nn

from vpr.models.attention_network import AttentionEncoderDecoder

torch.set_num_threads(1)  # two would wait for each other on a busy machine

# Table I: the parameters of each convolution in the order they are passed
TABLE = [
    1_792, 36_928, 73_856, 147_584, 295_168, 590_080, 1_180_160, 2_359_808, 2_359_808, 2_359_808,
    1_049_088, 2_359_552, 590_080, 262_400, 589_952, 147_584, 65_664, 147_520, 36_928, 16_448,
    73_792, 36_928, 65,
]  # fmt: skip
TOTAL = 14_788_929


def test_it_has_the_parameters_of_the_table() -> None:
    network = AttentionEncoderDecoder()
    assert sum(p.numel() for p in network.parameters()) == TOTAL


def test_each_convolution_is_that_of_the_table_in_its_order_and_size() -> None:
    network = AttentionEncoderDecoder().eval()
    passed: list[tuple[int, int]] = []

    def note(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        passed.append((sum(p.numel() for p in module.parameters()), output.shape[-1]))

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(note)
    with torch.inference_mode():
        attention = network(torch.zeros(1, 3, 64, 64))
    assert attention.shape == (1, 1, 64, 64)
    assert [parameters for parameters, _ in passed] == TABLE
    halvings = [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1, 1]
    assert [64 // width for _, width in passed] == halvings
