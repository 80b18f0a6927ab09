"""The sparse convolution equals a dense one on occupied sites."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vpr.relocalization.sparse_convolution import SparseConvolution, pool_images, quantise


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 3))
def test_it_equals_a_dense_convolution_on_occupied_sites(seed, count, images):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, 9, (count, 2), generator=generator)
    batch = torch.randint(0, images, (count,), generator=generator)
    features = torch.randn(count, 5, generator=generator)
    dense = torch.zeros(images, 5, 9, 9)
    points = torch.zeros(images, 1, 9, 9)
    for row in range(count):
        x, y = cells[row].tolist()
        dense[batch[row], :, y, x] += features[row]
        points[batch[row], 0, y, x] += 1
    dense = dense / points.clamp(min=1)

    convolution = SparseConvolution(5, 7)
    kernel = convolution.weight.reshape(3, 3, 5, 7).permute(3, 2, 0, 1)
    expected = functional.conv2d(dense, kernel, padding=1)
    at_sites, sites = quantise(features, cells, batch, images)
    result = convolution(at_sites, sites)

    image, y, x = torch.nonzero(points[:, 0], as_tuple=True)  # the order the sites are kept in
    assert torch.equal(sites.batch, image)
    assert torch.allclose(result, expected[image, :, y, x], atol=1e-5)


def test_pooling_is_the_mean_over_each_images_sites():
    features = torch.tensor([[1.0], [3.0], [10.0]])
    cells = torch.tensor([[0, 0], [5, 5], [0, 0]])
    at_sites, sites = quantise(features, cells, torch.tensor([0, 0, 1]), 2)
    assert pool_images(at_sites, sites).flatten().tolist() == [2.0, 10.0]
