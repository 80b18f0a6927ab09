"""A room seen one way round and known the other way: virtual views, and a belief among them."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from made_up_hall import camera_pose, room, there_and_back

from vpr.geometry import relative
from vpr.relocalization.markov_localization import PlaceBelief, followed
from vpr.relocalization.model import S3eModel
from vpr.relocalization.reprojection import mutual, similarity_matrix
from vpr.relocalization.rgbd import RgbdError
from vpr.relocalization.strip_appearance import LENGTH, StripAppearance, strips_of
from vpr.relocalization.virtual_rendering import MapDepth
from vpr.relocalization.virtual_views import (
    HEADINGS,
    PatchCloud,
    VirtualViews,
    appearance_differences,
    shown,
    turned,
)


@pytest.fixture(scope="module")
def hall():
    return there_and_back()


@pytest.fixture(scope="module")
def model(hall):
    torch.manual_seed(0)
    net = S3eModel("sparse", 16, dimension=64)
    net.encoder.patch.begin(net.given(list(hall.images[::2])).values)
    return net


@pytest.fixture(scope="module")
def given(hall, model):
    return model.given(list(hall.images))


def lap(sequence, number):
    return np.flatnonzero(sequence.laps == number)


def test_the_depth_of_a_view_that_nobody_took_is_known(hall):
    first = hall.chosen(lap(hall, 0))
    rendered = MapDepth.of(first).rendered(hall.poses[lap(hall, 2)])
    true = hall.depths[lap(hall, 2)][:, ::8, ::8]
    known = np.isfinite(rendered)
    assert known.mean() > 0.9
    assert np.median(np.abs(rendered - true)[known] / true[known]) < 0.05


def test_overlaps_of_virtual_views_are_those_of_real_ones(hall):
    rows = np.concatenate([lap(hall, 1), lap(hall, 2)])
    truth = mutual(similarity_matrix(hall, hall))[np.ix_(rows, lap(hall, 0))]
    depth = MapDepth.of(hall.chosen(lap(hall, 0)))
    found = depth.overlaps(hall.poses[rows], depth.rendered(hall.poses[rows]))
    assert truth.mean() > 0.15
    assert np.abs(found - truth).mean() < 0.03


def test_views_that_nobody_took_overlap_with_each_other(hall):
    rows = lap(hall, 2)
    truth = mutual(similarity_matrix(hall, hall))[np.ix_(rows, rows)]
    depth = MapDepth.of(hall.chosen(lap(hall, 0)))
    poses, rendered = hall.poses[rows], depth.rendered(hall.poses[rows])
    found = MapDepth.of_virtual(poses, rendered, depth.lens).overlaps(poses, rendered)
    assert np.abs(found - truth).mean() < 0.04


def test_a_camera_outside_of_the_map_sees_nothing_of_it(hall):
    depth = MapDepth.of(hall.chosen(lap(hall, 0)))
    away = camera_pose(0.0, 50.0, 0.0)[None]
    rendered = depth.rendered(away)
    assert not np.isfinite(rendered).any()
    assert not depth.overlaps(away, rendered).any()


def test_cameras_turn_on_the_spot_about_the_vertical(hall):
    first = hall.poses[lap(hall, 0)]
    poses = turned(first, 4)
    assert np.allclose(poses[: len(first)], first)
    assert np.allclose(poses[:, :3, 3], np.tile(first[:, :3, 3], (4, 1)))
    assert np.allclose(poses[2 * len(first) :, :3, 2][: len(first)], -first[:, :3, 2])
    assert np.allclose(poses[:, :3, 1], [0.0, 1.0, 0.0])


def test_patches_lie_on_the_walls(hall, model, given):
    rows = lap(hall, 0)
    part = given.rows(rows)
    cloud = PatchCloud.of(hall.chosen(rows), shown(model, part), part.places.numpy())
    outside = np.abs(cloud.points) / np.array([4.0, 1.5, 3.0])
    assert np.allclose(outside.max(axis=1), 1.0, atol=0.05)
    assert np.allclose(cloud.values.mean(axis=0), 0.0, atol=1e-3)


def test_patches_without_depth_are_left_out(hall, model, given):
    rows = lap(hall, 0)
    blind = hall.chosen(rows)
    blind.depths[0] = np.nan
    part = given.rows(rows)
    cloud = PatchCloud.of(blind, shown(model, part), part.places.numpy())
    assert len(cloud.points) == (len(rows) - 1) * part.values.shape[1]
    assert np.isfinite(cloud.points).all()


def test_a_lap_the_other_way_round_is_followed(hall, model, given):
    first, back = lap(hall, 0), lap(hall, 2)
    model.appearance.fit([appearance_differences(model, hall, given)])
    views = VirtualViews.of_map(model, hall.chosen(first), given.rows(first))
    assert views.overlaps.shape == (HEADINGS * len(first), len(first))
    steps = [relative(*pair) for pair in pairwise(hall.poses[back])]
    asked = views.describe(model, given.rows(back))
    belief = views.follow(model.appearance, asked, [None, *steps])
    assert np.allclose(belief.sum(axis=1), 1.0, atol=1e-4)
    everything = mutual(similarity_matrix(hall, hall))
    among = views.overlaps_of(belief[4:]) - everything[np.ix_(back[4:], back[4:])]
    assert np.abs(among).mean() < 0.3 * everything[np.ix_(back[4:], back[4:])].mean()
    truth = everything[np.ix_(back, first)]
    error = np.abs(belief @ views.overlaps - truth)
    assert error[4:].mean() < 0.25 * truth[4:].mean()
    assert error[4:].mean() < np.abs(views.overlaps.mean(axis=0) - truth)[4:].mean() / 2.0


def test_what_the_map_cannot_show_is_no_place_to_be(hall, model, given):
    rows = lap(hall, 0)[:2]  # side by side: they look the same way
    views = VirtualViews.of_map(model, hall.chosen(rows), given.rows(rows))
    ahead = views.poses[:, :3, 2] @ hall.poses[rows, :3, 2].T
    assert 2 <= len(views.poses) < HEADINGS * len(rows)
    assert (ahead.max(axis=1) > -0.5).all()  # none looks back


def test_a_single_lap_teaches_nothing(hall, model, given):
    rows = lap(hall, 0)
    with pytest.raises(RgbdError, match="single lap"):
        appearance_differences(model, hall.chosen(rows), given.rows(rows))


def test_an_encoder_that_makes_too_little_of_a_patch_is_refused(given):
    with pytest.raises(ValueError, match="32 components"):
        shown(S3eModel("sparse", 16, dimension=32), given)


def test_belief_moves_with_the_camera_and_spreads_where_it_is_lost():
    poses = np.stack([camera_pose(0.0, 0.5 * i, 0.0) for i in range(20)])
    belief = PlaceBelief(poses)
    seen = np.full(20, -20.0, np.float32)
    seen[3] = 0.0
    belief.see(seen)
    assert belief.shares.argmax() == 3
    ahead = camera_pose(0.0, 1.0, 0.0)
    for _ in range(3):
        belief.move(ahead)
    assert belief.shares.argmax() == 9
    belief.move(camera_pose(500.0, 0.0, 0.0))  # out of the map
    assert np.allclose(belief.shares, 0.05)


def test_a_view_is_judged_by_those_before_it_alone():
    poses = np.stack([camera_pose(0.0, 0.5 * i, 0.0) for i in range(10)])
    seen = np.random.default_rng(0).normal(0.0, 1.0, (6, 10)).astype(np.float32)
    motions = [None, *[camera_pose(0.0, 0.5, 0.0)] * 5]
    whole = followed(poses, seen, motions)
    assert np.allclose(followed(poses, seen[:3], motions[:3]), whole[:3])
    alone = followed(poses, seen[3:4], [None])
    assert not np.allclose(alone[0], whole[3])
    assert np.allclose(followed(poses, seen, [*motions[:3], None, *motions[4:]])[3], alone[0])


def test_strips_tell_left_from_right():
    values = np.ones((1, 30, 32), np.float32)
    places = np.full((1, 30, 2), 0.1, np.float32)
    left = strips_of(values, places).reshape(3, 32)
    assert (left[0] > 0.9).all()
    assert not left[1:].any()


def test_likelihood_counts_differences_by_how_common_they_are():
    appearance = StripAppearance()
    assert not appearance.fitted
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(LENGTH) == 0, 10.0, 1.0)
    appearance.fit([(rng.normal(size=(4000, LENGTH)) * scale).astype(np.float32)])
    assert appearance.fitted
    asked = np.zeros((1, LENGTH), np.float32)
    known = np.zeros((3, LENGTH), np.float32)
    known[1, 0] = known[2, 1] = 3.0
    same, common, rare = appearance.log_likelihoods(asked, known)[0]
    assert same == pytest.approx(0.0, abs=1e-5)
    assert same > common > rare


def test_a_model_file_without_appearance_loads_and_one_with_it_keeps_it(tmp_path, model):
    from safetensors.torch import load_file, save_file

    file = tmp_path / "s3e.safetensors"
    model.appearance.precision.copy_(torch.eye(LENGTH))
    model.save(file)
    assert torch.equal(S3eModel.load(file).appearance.precision, torch.eye(LENGTH))
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        described = opened.metadata()
    older = {k: v for k, v in load_file(file).items() if not k.startswith("appearance.")}
    save_file(older, file, metadata=described)
    assert not S3eModel.load(file).appearance.fitted


def test_a_room_is_drawn_with_its_true_depth():
    ahead = room([camera_pose(0.0, 0.0, 0.0)], [0])
    assert ahead.depths[0, 60, 80] == pytest.approx(3.0)
