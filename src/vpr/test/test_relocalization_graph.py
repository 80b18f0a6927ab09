"""Encoders, losses, the graph network, equation 2 and the incremental reference graph."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.relocalization.encoders import PIXEL_VALUES, EncoderInput, make_encoder, patch_pixels
from vpr.relocalization.graph_network import GraphNetwork, chain
from vpr.relocalization.loss import graph_query_loss, shrinkage
from vpr.relocalization.patches import PatchExtractor
from vpr.relocalization.query import (
    ETA,
    closure_information,
    distribution,
    inverse_cross_entropy,
)
from vpr.relocalization.reference_graph import ReferenceGraph, ReferenceGraphError
from vpr.relocalization.similarity_scale import SimilarityScale, centred_cosines


def textured(seed):
    blocks = np.random.default_rng(seed).integers(0, 256, (30, 40, 3))
    return np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)


def shown(patches):
    return EncoderInput.of(patches, patch_pixels(patches))


def embeddings(count, dimension=8):
    return np.random.default_rng(0).standard_normal((count, dimension)).astype(np.float32)


def network(dimension=8):
    torch.manual_seed(0)
    return GraphNetwork(dimension)


@pytest.mark.parametrize("kind", ["vit", "sparse"])
def test_an_encoder_learns_which_images_are_alike(kind):
    torch.manual_seed(0)
    extract = PatchExtractor(16, 32)
    given = shown([extract(textured(seed // 2)) for seed in range(16)])
    truth = torch.block_diag(*[torch.ones(2, 2)] * 8)
    encoder = make_encoder(kind, PIXEL_VALUES, 16)
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-3)
    losses = []
    for _ in range(25):
        embedded = torch.nn.functional.normalize(encoder(given), dim=1)
        loss = shrinkage(embedded @ embedded.T, truth).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_images_in_a_batch_do_not_see_each_other():
    patches = [PatchExtractor(32, 32)(textured(seed)) for seed in (1, 2, 3)]
    for kind in ("vit", "sparse"):
        encoder = make_encoder(kind, PIXEL_VALUES, 16).eval()
        together = encoder(shown(patches))
        alone = torch.cat([encoder(shown([p])) for p in patches])
        assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "sparse"])
def test_an_encoder_begins_with_how_alike_the_patches_are(kind):
    torch.manual_seed(0)
    extract = PatchExtractor(16, 32)
    given = shown([extract(textured(seed // 2)) for seed in range(24)])
    encoder = make_encoder(kind, PIXEL_VALUES, 32)
    encoder.patch.begin(given.values)
    means = encoder.patch.scaling(given.values.flatten(0, 1)).reshape(given.values.shape).mean(1)
    similar = [
        centred_cosines(values, torch.ones(24, dtype=torch.bool)).detach()
        for values in (means, encoder(given))
    ]
    apart = ~torch.eye(24, dtype=torch.bool)
    assert np.corrcoef(similar[0][apart], similar[1][apart])[0, 1] > 0.5


def test_a_graph_network_begins_with_the_ranking_of_the_embeddings():
    rows = torch.nn.functional.normalize(torch.from_numpy(embeddings(40, 64)), dim=1)
    features = distribution(network(64)(rows, torch.zeros(2, 0, dtype=torch.int64)).detach())
    by_graph = inverse_cross_entropy(features, features)
    apart = ~torch.eye(40, dtype=torch.bool)
    assert np.corrcoef(by_graph[apart], (rows @ rows.T)[apart])[0, 1] > 0.8


def test_what_all_views_of_a_map_share_says_nothing():
    rows = torch.from_numpy(embeddings(20, 16))
    of_map = torch.arange(20) < 10
    assert torch.allclose(
        centred_cosines(rows, of_map), centred_cosines(rows + 50.0, of_map), atol=1e-3
    )


def test_a_scale_rises_and_lowers_the_error():
    rng = np.random.default_rng(0)
    truth = np.where(rng.random(4000) < 0.7, 0.0, rng.random(4000)).astype(np.float32)
    cosines = np.clip(0.3 + 0.5 * truth + rng.normal(0, 0.1, 4000), -1, 1).astype(np.float32)
    scale = SimilarityScale()
    before = np.abs(scale(cosines) - truth).mean()
    scale.fit(cosines, truth)
    assert (np.diff(scale(np.linspace(-1, 1, 200))) >= 0).all()
    assert np.abs(scale(cosines) - truth).mean() < 0.5 * before


def test_unknown_encoders_are_refused():
    with pytest.raises(ValueError, match="resnet"):
        make_encoder("resnet", PIXEL_VALUES)


def test_shrinkage_loss_spares_small_errors():
    zero = torch.zeros(1)
    small, large = (float(shrinkage(torch.tensor([e]), zero).mean()) for e in (0.05, 0.8))
    assert small < 0.25 * 0.05**2
    assert large == pytest.approx(0.8**2, rel=0.01)


def test_graph_queries_that_see_nothing_are_left_out():
    scores = torch.tensor([[3.0, 0.0], [0.0, 9.0]])
    truth = torch.tensor([[0.5, 0.0], [0.0, 0.0]])
    expected = -torch.log_softmax(scores[0], dim=0)[0]
    assert torch.isclose(graph_query_loss(scores, truth), expected)
    assert float(graph_query_loss(scores, torch.zeros(2, 2))) == 0.0


def test_the_batched_product_is_equation_2():
    q, m = torch.rand(3, 5), torch.rand(4, 5) * 0.9 + 0.05
    result = inverse_cross_entropy(q, m)
    for i in range(3):
        for j in range(4):
            expected = 1.0 / (ETA - sum(q[i, k] * torch.log(m[j, k]) for k in range(5)))
            assert torch.isclose(result[i, j], expected, rtol=1e-4)
    with pytest.raises(ValueError, match="5 dimensions"):
        inverse_cross_entropy(q, torch.rand(2, 6))


def test_nothing_is_more_like_a_distribution_than_itself():
    torch.manual_seed(0)
    rows = distribution(torch.rand(50, 6))
    similarities = inverse_cross_entropy(rows, rows)
    assert torch.equal(similarities.argmax(dim=1), torch.arange(50))


def test_information_grows_with_similarity():
    assert torch.equal(closure_information(0.5, 4.0), 2.0 * torch.eye(6, dtype=torch.float64))
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="similarity"):
            closure_information(wrong)


def test_the_graph_kept_incrementally_equals_the_one_computed_at_once():
    values, net = embeddings(40), network()
    graph = ReferenceGraph(net)
    for i, value in enumerate(values):
        graph.add(100 + i, value, beside=99 + i if i else None)
    graph.connect(103, 137)
    loop = torch.tensor([[3, 37], [37, 3]])
    edges = torch.cat([chain(40), loop], dim=1)
    with torch.no_grad():
        expected = net(torch.from_numpy(values), edges)
    assert torch.allclose(graph.features, expected, atol=1e-5)


def test_a_new_keyframe_renews_its_surroundings_only():
    graph = ReferenceGraph(network())
    for i, value in enumerate(embeddings(200)):
        graph.add(i, value, beside=i - 1 if i else None)
    before = graph.recomputed
    graph.add(200, embeddings(1)[0], beside=199)
    assert graph.recomputed - before == 5


@pytest.mark.parametrize("size", [20, 2000])
def test_an_insertion_costs_the_same_in_a_graph_of_any_size(size):
    graph = ReferenceGraph(network())
    before = [i - 1 if i else None for i in range(size)]
    graph.extend(range(size), embeddings(size), before)
    assert graph.recomputed == size
    graph.add(size, embeddings(1)[0], beside=size - 1)
    assert graph.recomputed - size == 5


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.booleans(), min_size=1, max_size=25),
    rounds=st.lists(
        st.sets(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=4), max_size=3
    ),
)
def test_whatever_comes_and_goes_the_graph_equals_one_built_anew(steps, rounds):
    net, values = network(), embeddings(len(steps))
    before = [i - 1 if i and goes_on else None for i, goes_on in enumerate(steps)]
    graph = ReferenceGraph(net)
    for i, (value, beside) in enumerate(zip(values, before, strict=True)):
        graph.add(i, value, beside)
        if i < len(rounds):
            graph.set_loops(rounds[i])
    loops = rounds[-1] if rounds else set()
    graph.set_loops(loops)
    anew = ReferenceGraph(net)
    anew.extend(range(len(steps)), values, before)
    anew.set_loops(loops)
    assert torch.allclose(graph.features, anew.features, atol=1e-5)
    similarities = graph.similarities(values[:1])
    np.testing.assert_allclose(similarities, anew.similarities(values[:1]), atol=1e-4)


def test_a_query_finds_the_node_that_it_repeats():
    graph, values = ReferenceGraph(network()), 4.0 * embeddings(30)
    for i, value in enumerate(values):
        graph.add(i, value, beside=i - 1 if i else None)
    with torch.no_grad():
        newest = graph.network(torch.from_numpy(values[8:13]), chain(5))[-1]
    best = int((graph.features - newest).abs().sum(dim=1).argmin())
    answer = graph.query(values[8:13], k=3)
    assert answer.ids[0] == best
    assert answer.searched == 30
    assert 0.5 < answer.similarities[0] <= 1.0
    assert np.all(np.diff(answer.similarities) <= 0)
    without = graph.query(values[8:13], k=3, excluded=frozenset([best]))
    assert best not in without.ids
    assert without.searched == 29


def test_one_node_and_disconnected_graphs_answer_and_an_empty_one_says_why_not():
    graph = ReferenceGraph(network())
    with pytest.raises(ReferenceGraphError, match="empty"):
        graph.query(embeddings(1), k=1)
    graph.add(7, embeddings(1)[0])
    assert graph.query(embeddings(1), k=5).ids.tolist() == [7]
    graph.add(9, embeddings(2)[1])  # no edge to the other
    assert set(graph.query(embeddings(3), k=5).ids) == {7, 9}


def test_wrong_nodes_edges_and_queries_are_refused():
    graph = ReferenceGraph(network())
    graph.add(1, embeddings(1)[0])
    for wrong, words in [
        (lambda: graph.add(1, embeddings(1)[0]), "already"),
        (lambda: graph.add(2, embeddings(1)[0], beside=5), "not in the graph"),
        (lambda: graph.add(2, np.full(8, np.nan, np.float32)), "not finite"),
        (lambda: graph.connect(1, 1), "itself"),
        (lambda: graph.connect(1, 5), "not in the graph"),
        (lambda: graph.query(embeddings(1, 4), 1), "not"),
    ]:
        with pytest.raises(ReferenceGraphError, match=words):
            wrong()
    assert len(graph) == 1
