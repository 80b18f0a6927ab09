"""Relocalization and loops in a made-up hall: right retrieval gives poses, wrong one does not."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up_wall import wall

from vpr.config import RelocalizationConfig
from vpr.evaluation.bag_of_words import VocabularyTree, l1_similarities, orb_descriptors
from vpr.evaluation.candidates import JudgedCandidates
from vpr.evaluation.relocalization import (
    in_laps,
    judged_candidates,
    map_rows,
    probability_rows,
    relocalization_row,
    similarity_row,
)
from vpr.evaluation.relocalization_cost import keyframe_rate, query_costs
from vpr.evaluation.relocalization_loops import (
    NO_LOOPS,
    OVERLAID,
    LoopDrives,
    drifting,
    loop_methods,
    loop_summary,
)
from vpr.evaluation.view_search import asked_once, by_encoder, by_graph, by_words
from vpr.evaluation.view_verification import ViewVerifier
from vpr.relocalization.known_overlap import passed_on
from vpr.relocalization.model import S3eModel
from vpr.relocalization.relocalizer import Relocalizer
from vpr.relocalization.reprojection import mutual, similarity_matrix
from vpr.relocalization.rgbd import RgbdError


@pytest.fixture(scope="module")
def hall():
    """Two laps of 24 views, half a metre apart."""
    return wall(views=24, step=0.5, size=(320, 240))


@pytest.fixture(scope="module")
def truth(hall):
    return mutual(similarity_matrix(hall, hall))


def test_right_retrieval_finds_the_pose_and_wrong_retrieval_does_not(hall, truth):
    searches = {"right": lambda _: truth, "wrong": lambda _: -truth}
    verify = ViewVerifier(hall)
    right, wrong = (
        relocalization_row(hall, name, search, truth, verify) for name, search in searches.items()
    )
    assert right["refined_recall_0.25m_5deg"] == 1.0
    assert right["overlap"] == pytest.approx(right["overlap_of_best"])
    assert right["queries"] == 24
    assert wrong["overlap"] == 0.0
    assert wrong["verified"] == 0.0
    assert wrong["refined_recall_0.5m_10deg"] == 0.0


def test_a_recording_in_one_go_has_its_first_half_as_map(hall, truth):
    one = replace(hall, laps=np.zeros(len(hall), np.int64))
    with pytest.raises(RgbdError, match="single lap"):
        relocalization_row(one, "any", lambda _: truth, truth, ViewVerifier(one))
    assert np.array_equal(in_laps(one).laps, np.arange(48) // 24)
    assert in_laps(hall) is hall


def test_every_candidate_of_a_lost_view_is_judged(hall, truth):
    config = RelocalizationConfig.from_file(candidate_separation=2, top_k=3)
    torch.manual_seed(0)
    relocalizer = Relocalizer(config, S3eModel("sparse", 16, patch_count=64, dimension=32))
    judged = judged_candidates(hall, relocalizer, truth)
    assert len(judged.best().right) == 24
    assert judged.best().right.all()  # the second lap shows the same as the first
    best, further = probability_rows(judged, config)
    assert best["right"] == 1.0
    assert "fitting_midpoint" not in best  # all are right: no curve fits
    assert further["number"] == len(judged.right) - 24
    read_back = JudgedCandidates.from_json(judged.name, json.loads(json.dumps(judged.to_json())))
    assert probability_rows(read_back, config) == [best, further]


def test_a_search_is_asked_once():
    asked = []
    search = asked_once(lambda sequence: asked.append(sequence) or np.eye(2))
    assert np.array_equal(search("level"), search("level"))
    assert asked == ["level"]


def test_errors_of_similarity_leave_the_diagonal_out(hall, truth):
    row = similarity_row(hall, "all", np.zeros_like(truth), truth)
    apart = ~np.eye(len(truth), dtype=bool)
    assert row["mean_absolute_error"] == pytest.approx(truth[apart].mean())
    assert row["mean_absolute_error"] == pytest.approx(row["always_zero"])
    assert row["mean_absolute_error"] <= row["map_maximum"] <= row["pair_maximum"]
    assert similarity_row(hall, "all", truth, truth)["of_loops"] == 0.0
    wrong_in_the_map = truth.copy()
    wrong_in_the_map[:24, :24] = 1.0
    left = similarity_row(hall, "later", wrong_in_the_map, truth, np.arange(24))
    assert left["mean_absolute_error"] == 0.0


def test_what_the_map_knows_of_itself_completes_a_row(hall, truth):
    first = hall.laps == 0
    known = truth[np.ix_(first, first)]
    passed = passed_on(np.where(np.eye(24) > 0, 1.0, 0.0).astype(np.float32), known)
    nothing = np.zeros_like(passed)
    encoder, graph = map_rows(hall, {"encoder": nothing, "passed on": passed}, truth)
    assert encoder["pairs"] == "lap 2 on the map, encoder"
    assert encoder["mean_absolute_error"] == pytest.approx(encoder["always_zero"])
    assert graph["mean_absolute_error"] < 1e-3  # every query is recognised, all else follows
    assert graph["map_maximum"] < 0.01


def test_a_query_that_is_like_nothing_is_like_everything_a_little(truth):
    known = truth[:24, :24]
    row = passed_on(np.zeros((1, 24), np.float32), known)
    assert row[0] == pytest.approx(known.mean(axis=0))


def test_odometry_drifts_the_same_for_the_same_seed(hall):
    one, again, other = (np.stack(drifting(hall.poses, seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)
    assert np.linalg.norm(one[-1, :3, 3] - hall.poses[-1, :3, 3]) > 0.05


def test_true_loops_halve_the_trajectory_error(hall, truth):
    searches = {"right": lambda _: truth}
    drives = LoopDrives(hall, searches, ViewVerifier(hall))
    rows = [drives.row(name, seed) for seed in range(2) for name in loop_methods(searches)]
    summary = {row["method"]: row for row in loop_summary(rows)}
    overlaid = summary[f"right, {OVERLAID}"]
    assert overlaid["ate_m"] < summary["right"]["ate_m"]
    assert overlaid["loops_taken"] > summary["right"]["loops_taken"]
    assert summary["right"]["ate_m"] < 0.5 * summary[NO_LOOPS]["ate_m"]
    assert summary["right"]["loops_taken"] > 5
    assert summary[NO_LOOPS]["loops_taken"] == 0


def test_words_of_the_same_wall_are_the_same(hall):
    described = [orb_descriptors(image) for image in hall.images]
    tree = VocabularyTree.grown(described[:24], depth=2)
    assert tree.words(described[0]).max() < 100
    scores = by_words(tree)(hall)
    assert np.allclose(np.diag(scores), 1.0, atol=1e-4)
    assert np.array_equal(scores[24:, :24].argmax(axis=1), np.arange(24))
    assert not tree.histogram(np.zeros((0, 32), np.uint8)).any()


def test_the_score_of_words_is_that_of_dbow2():
    one, other = np.array([[0.5, 0.5, 0.0]], np.float32), np.array([[0.0, 0.25, 0.75]], np.float32)
    assert l1_similarities(one, other)[0, 0] == pytest.approx(1.0 - 0.5 * np.abs(one - other).sum())


def test_searches_by_a_model_answer_for_all_views_and_short_laps(hall):
    model = S3eModel("sparse", 16, patch_count=16, dimension=16)
    short = hall.chosen(np.array([0, 1, 2, 24, 25, 26]))
    for search in (by_encoder(model), by_graph(model)):
        scores = search(short)
        assert scores.shape == (6, 6)
        assert np.isfinite(scores).all()
        assert np.allclose(scores[:3, 3:].max(axis=1), scores[:3, :3].max(axis=1), atol=0.2)


def test_costs_are_told_for_every_size():
    model = S3eModel("sparse", 16, patch_count=16, dimension=16)
    images = list(wall(laps=1, views=3).images)
    assert keyframe_rate(model, images)["keyframes_per_second"] > 0
    assert [row["nodes"] for row in query_costs(model, (10, 20))] == [10, 20]
