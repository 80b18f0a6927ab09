"""The relocalizer: keyframes one by one, matches, maps on disk, and answers with their reasons."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from made_up_gallery import CAMERA, CAMERA_IN_BASE, Gallery, save_model
from saved_part import changed_part, saved_part
from typer.testing import CliRunner

from vpr.cli import app
from vpr.config import LoopClosureConfig, PoseGraphConfig, RelocalizationConfig
from vpr.graph.lie_group import lie_group
from vpr.graph.measurements import closure_edge
from vpr.graph.pose_graph import PoseGraph
from vpr.graph.storage import save_graph
from vpr.maps.folder import PartOutdated, PartWriter, begin_revision, commit, open_part
from vpr.maps.sessions import delete_session, merge_maps, verify_map
from vpr.maps.table import MapError
from vpr.models.weights import WeightsError
from vpr.records import ClosureState, Keyframe, LoopClosure, MatchSource
from vpr.relocalization.located import NotLocated, in_map, located
from vpr.relocalization.patches import PatchError
from vpr.relocalization.query import closure_information
from vpr.relocalization.reference_graph import ReferenceGraphError
from vpr.relocalization.relocalizer import Relocalizer, RelocalizerError
from vpr.relocalization.storage import PART, TABLE, SceneStateError
from vpr.verification.loop_closer import LoopCloser

SECOND = 10**9
GALLERY = Gallery()
DRIVE = np.arange(0.0, 10.0, 0.5)  # m along the wall, a keyframe each


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "s3e.safetensors")


def relocalizer(model, **overrides):
    values = {
        "s3e_model": model, "exclude_recent_time": 0.0, "exclude_recent_keyframes": 3,
        "candidate_separation": 2, "query_length": 3, "min_probability": 0.0,
    }  # fmt: skip
    return Relocalizer(RelocalizationConfig.from_file(**values | overrides))


def keyframe(number, session=0):
    return Keyframe(number, session, number * SECOND, np.zeros(0, np.float32), "")


def drive(engine, positions=DRIVE, first=0, session=0):
    """Matches of the keyframes."""
    return [
        engine.observe(keyframe(first + i, session), GALLERY.view(x))
        for i, x in enumerate(positions)
    ]


def anchor_all(engine):
    ids = engine.graph.ids.tolist()
    engine.map_is(ids, ids, [])


def test_a_place_seen_again_is_the_best_candidate(model):
    engine = relocalizer(model)
    drive(engine)
    found = drive(engine, DRIVE[4:10], first=20, session=1)[-1]
    best = found.candidates[0]
    assert (best.reference_id, best.reference_session) == (9, 0)
    assert best.source is MatchSource.GNN
    assert best.distance == pytest.approx(0.0, abs=1e-5)
    assert best.sequence_score == max(c.sequence_score for c in found.candidates) > 0.0
    assert all(0.0 <= c.probability <= 1.0 for c in found.candidates)
    assert found.searched == 25 - 3  # all but the three just seen
    assert len(found.candidates) <= engine.config.top_k
    assert not found.explanation


def test_what_the_robot_has_just_seen_is_no_candidate(model):
    engine = relocalizer(model, exclude_recent_keyframes=4)
    matches = drive(engine, DRIVE[:8])
    assert [m.searched for m in matches] == [0, 0, 0, 0, 0, 1, 2, 3]
    assert matches[0].explanation == "no loop: of 0 places none can be searched"
    slow = relocalizer(model, exclude_recent_keyframes=0, exclude_recent_time=5.5)
    assert drive(slow, DRIVE[:8])[-1].searched == 2


def test_improbable_places_are_kept_back_while_driving_and_told_to_who_asks(model):
    engine = relocalizer(model, probability_midpoint=9.0, min_probability=0.5)
    matches = drive(engine)
    anchor_all(engine)
    assert not any(m.candidates for m in matches)
    assert matches[-1].explanation == "no loop: best candidate 0.00 < 0.50, 16 places searched"
    assert engine.locate(GALLERY.view(5.0), 0).candidates[0].reference_id == 10


def test_a_keyframe_told_twice_or_late_is_refused(model):
    engine = relocalizer(model)
    drive(engine, DRIVE[:3], first=5)
    for number in (7, 2):
        with pytest.raises(ReferenceGraphError, match="comes after"):
            engine.observe(keyframe(number), GALLERY.view(0.0))
    assert len(engine) == 3


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.full((240, 320, 3), 90, np.uint8), "blank_image"),
        (np.tile(np.linspace(0, 60, 320).astype(np.uint8), (240, 1)), "too_few_keypoints"),
        (GALLERY.view(1.0)[:10], "image_too_small"),
    ],
)
def test_an_image_that_says_nothing_is_named_and_the_graph_stays(model, image, reason):
    engine = relocalizer(model)
    drive(engine, DRIVE[:6])
    with pytest.raises(PatchError) as refused:
        engine.observe(keyframe(6), image)
    assert refused.value.reason == reason
    assert len(engine) == 6
    engine.observe(keyframe(7), GALLERY.view(3.5))
    assert engine.graph._beside[6] == {5}  # tied over the gap


def test_graphs_of_one_node_and_of_sessions_that_are_not_tied_answer(model):
    engine = relocalizer(model, exclude_recent_keyframes=0)
    drive(engine, DRIVE[:1])
    anchor_all(engine)
    (only,) = engine.locate(GALLERY.view(0.0), 0).candidates
    assert only.reference_id == 0
    drive(engine, DRIVE[10:13], first=1, session=1)
    anchor_all(engine)
    assert engine.locate(GALLERY.view(DRIVE[12]), 0).candidates[0].reference_id == 3


def test_only_keyframes_with_a_place_in_the_map_locate_and_deleted_ones_never_match(model):
    engine = relocalizer(model)
    drive(engine)
    explanation = engine.locate(GALLERY.view(2.0), 0).explanation
    assert explanation == "no loop: of 20 places none can be searched"
    engine.map_is(range(20), range(10, 20), [])
    found = {c.reference_id for c in engine.locate(GALLERY.view(1.0), 0).candidates}
    assert found
    assert min(found) >= 10
    engine.map_is(range(10), range(10), [(0, 9)])
    assert engine.graph._loops == {(0, 9)}
    engine.map_is([*range(5), *range(15, 20)], (), [])  # 5 to 14 were deleted
    matches = drive(engine, DRIVE[8:14], first=20, session=1)
    assert all(c.reference_id not in range(5, 15) for m in matches for c in m.candidates)


def test_the_live_camera_is_also_looked_for_without_what_it_saw_before(model):
    engine = relocalizer(model)
    drive(engine)
    drive(engine, DRIVE[2:5], first=20, session=1)
    anchor_all(engine)
    alone = engine.locate(GALLERY.view(9.0), 50 * SECOND)
    live = engine.locate(GALLERY.view(9.0), 50 * SECOND, follows_camera=True)
    assert alone.candidates[0].reference_id == 18
    assert {c.reference_id for c in alone.candidates} <= {c.reference_id for c in live.candidates}
    assert len({c.reference_id for c in live.candidates}) == len(live.candidates)


def test_a_guess_orders_the_candidates_and_never_removes_the_most_similar_one(model):
    engine = relocalizer(model, pose_prior_used=True, top_k=2)
    drive(engine)
    anchor_all(engine)
    engine.prior.map_is({i: GALLERY.pose(x) for i, x in enumerate(DRIVE)})
    best = engine.locate(GALLERY.view(8.0), 7).candidates[0].reference_id
    assert best == 16
    engine.prior.guess(7, GALLERY.pose(1.0), np.diag([0.01] * 6))
    first, second = engine.locate(GALLERY.view(8.0), 7).candidates
    assert abs(DRIVE[first.reference_id] - 1.0) <= 1.0 + 3 * 0.1
    assert second.reference_id == best


def test_a_map_gives_the_same_graph_again_and_grows(model, tmp_path):
    engine = relocalizer(model)
    drive(engine)
    saved_part(tmp_path / "map", PART, engine.save)
    drive(engine, DRIVE[3:8], first=20, session=1)
    part = saved_part(tmp_path / "map", PART, engine.save)
    assert (part.count, part.table(TABLE).rows) == (25, 25)
    again = relocalizer(model)
    again.load(part)
    np.testing.assert_allclose(again.graph.features, engine.graph.features, atol=1e-6)
    anchor_all(engine)
    anchor_all(again)
    image = GALLERY.view(6.1)
    assert again.locate(image, 0) == engine.locate(image, 0)
    assert drive(again, DRIVE[:2], first=25, session=2)[-1].searched == 25


def test_a_map_of_another_model_is_left_and_said_and_damage_is_refused(model, tmp_path):
    engine = relocalizer(model)
    drive(engine)
    part = saved_part(tmp_path / "map", PART, engine.save)
    other = relocalizer(save_model(tmp_path / "other.safetensors", dimension=32))
    other.load(part)
    assert len(other) == 0
    assert "drive it again with this model" in other.locate(GALLERY.view(1.0), 0).explanation
    other.load(saved_part(tmp_path / "empty", PART, lambda writer: writer.finish(0, {})))
    assert not other.remark

    def spoil(arrays):
        arrays["ids"][3] = 0

    damaged = changed_part(tmp_path / "damaged", PART, engine.save, TABLE, spoil)
    with pytest.raises(SceneStateError, match="ascend"):
        engine.load(damaged)
    assert len(engine) == 20


def test_rows_that_are_gone_ask_for_a_new_revision(model, tmp_path):
    engine = relocalizer(model)
    drive(engine, DRIVE[:6])
    saved_part(tmp_path / "map", PART, engine.save)
    engine.map_is([0, 1, 5], [], [])
    with pytest.raises(PartOutdated):
        saved_part(tmp_path / "map", PART, engine.save)
    assert saved_part(tmp_path / "new", PART, engine.save).count == 3


def test_it_is_not_made_without_a_model_or_of_a_foreign_file(tmp_path):
    with pytest.raises(RelocalizerError, match="vpr train s3e"):
        relocalizer("")
    (tmp_path / "foreign.safetensors").write_bytes(b"foreign")
    with pytest.raises(WeightsError, match="foreign"):
        relocalizer(str(tmp_path / "foreign.safetensors"))


# From candidates to a pose


def closer_of(drive_positions, depth=True):
    closer = LoopCloser(LoopClosureConfig.from_file(camera_in_base=CAMERA_IN_BASE))
    for number, x in enumerate(drive_positions):
        closer.add_keyframe(keyframe(number), features(closer, GALLERY.view(x), depth))
    return closer


def features(closer, image, depth=True):
    return closer.extract(image, GALLERY.depth() if depth else None, CAMERA)


PLACES = {number: GALLERY.pose(x) for number, x in enumerate(DRIVE)}


@pytest.mark.parametrize("depth", [True, False], ids=["depth", "no depth"])
def test_an_image_is_found_in_the_map_with_a_covariance_that_holds(model, depth):
    engine, closer = relocalizer(model), closer_of(DRIVE, depth)
    drive(engine)
    anchor_all(engine)
    image = GALLERY.view(5.1)
    verdicts = closer.compare(features(closer, image, depth), engine.locate(image, 0))
    found = located(verdicts, PLACES, engine.config)
    sigma = np.sqrt(np.diag(found.covariance)[:3])
    assert np.all(np.abs(found.pose[:3, 3] - (5.1, 0, 0)) < 3 * sigma)
    assert np.linalg.norm(found.pose[:3, 3] - (5.1, 0, 0)) < (0.1 if depth else 0.7)
    assert sigma.max() < 0.2 if depth else "distance unknown" in found.reason
    assert (len(closer), found.session) == (len(DRIVE), 0)
    assert "by this image alone" in found.reason


def test_depth_of_nothing_but_holes_is_no_depth(model):
    engine, closer = relocalizer(model), closer_of(DRIVE, depth=False)
    drive(engine)
    anchor_all(engine)
    image = GALLERY.view(5.1)
    blind = closer.extract(image, np.full((240, 320), np.nan, np.float32), CAMERA)
    found = located(closer.compare(blind, engine.locate(image, 0)), PLACES, engine.config)
    assert "distance unknown" in found.reason


def saved_map(folder, engine, closer):
    """A map of the drive, each keyframe where odometry has it."""
    graph = PoseGraph(PoseGraphConfig.from_file())
    for number in engine.graph.ids.tolist():
        graph.add_keyframe(replace(keyframe(number), odometry=PLACES[number]))
    parts = {
        PART: engine.save,
        "places": lambda writer: writer.finish(0, {}),
        "features": closer.save,
        "graph": lambda writer: save_graph(writer, graph.state()),
    }
    digests, revision = [], begin_revision(folder)
    for name, save in parts.items():
        with PartWriter(folder, revision, name) as writer:
            digests.append(save(writer))
    commit(folder, revision, digests, "")
    return folder


def test_merged_maps_keep_their_scenes_and_a_deleted_session_takes_its_own_along(model, tmp_path):
    folders = []
    for name, positions in {"one": DRIVE[:6], "two": DRIVE[10:16]}.items():
        engine = relocalizer(model)
        drive(engine, positions)
        folders.append(saved_map(tmp_path / name, engine, closer_of(positions, depth=False)))
    merged = tmp_path / "merged"
    assert merge_maps(merged, folders).part(PART).count == 12
    verify_map(merged)
    both = relocalizer(model)
    both.load(open_part(merged, PART))
    both.map_is(both.graph.ids, both.graph.ids, [])
    found = both.locate(GALLERY.view(DRIVE[12]), 0).candidates[0]
    assert (found.reference_id, found.reference_session) == (8, 1)
    assert delete_session(merged, 0).part(PART).count == 6
    both.load(open_part(merged, PART))
    assert both.graph.ids.tolist() == list(range(6, 12))
    other = relocalizer(save_model(tmp_path / "other.safetensors", dimension=32))
    drive(other, DRIVE[:3])
    folders.append(saved_map(tmp_path / "three", other, closer_of(DRIVE[:3], depth=False)))
    with pytest.raises(MapError, match="their graphs can't be joined"):
        merge_maps(tmp_path / "refused", folders)


def test_a_picture_is_found_in_a_map_on_disk(model, tmp_path):
    engine, picture = relocalizer(model), tmp_path / "photo.png"
    drive(engine)
    folder = saved_map(tmp_path / "map", engine, closer_of(DRIVE))
    cv2.imwrite(str(picture), GALLERY.view(5.1))
    fov = 2.0 * np.degrees(np.arctan(0.5 * 320 / 200.0))
    params = tmp_path / "mine.yaml"
    params.write_text(f"loop_closure: {{ros__parameters: {{camera_in_base: {CAMERA_IN_BASE}}}}}")
    words = ["map", "locate", str(folder), str(picture), "--model", model]
    words += ["--horizontal-fov", f"{fov}", "--params-file", str(params)]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    x = float(re.search(r"x (-?[0-9.]+) y", answer.output)[1])
    assert x == pytest.approx(5.1, abs=0.15)
    cv2.imwrite(str(picture), np.full((240, 320, 3), 9, np.uint8))
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "blank" in refused.output


def test_an_image_of_elsewhere_is_refused_with_the_nearest_candidates_reason(model):
    engine, closer = relocalizer(model), closer_of(DRIVE)
    drive(engine)
    anchor_all(engine)
    strange = Gallery(seed=9).view(3.0)
    verdicts = closer.compare(features(closer, strange), engine.locate(strange, 0))
    assert all(v.state is ClosureState.REJECTED and v.rejected_by for v in verdicts)
    with pytest.raises(NotLocated, match=r"none of \d candidates passed; the nearest was keyframe"):
        located(verdicts, PLACES, engine.config)
    blank = closer.extract(np.full((240, 320, 3), 9, np.uint8), None, CAMERA)
    (verdict, *_) = closer.compare(blank, engine.locate(strange, 0))
    assert verdict.reason == "the image has only 0 features: blank or blurred"


def verdict(reference, x, inliers, state=ClosureState.VERIFIED):
    pose = GALLERY.pose(x)
    covariance = np.diag([0.01] * 3 + [1e-4] * 3)
    return LoopClosure(
        0, 0, 0, reference, 0, 0, state, "fits", 0.8, inliers, relative_pose=pose,
        covariance=covariance,
    )  # fmt: skip


def test_two_places_that_fit_alike_are_no_answer_but_two_views_of_one_are(model):
    config = RelocalizationConfig.from_file()
    found = located([verdict(4, 0.1, 60), verdict(6, -0.9, 90)], PLACES, config)
    assert (found.keyframe_id, found.inliers, found.probability) == (6, 90, 0.8)
    assert found.pose[0, 3] == pytest.approx(2.1)
    with pytest.raises(NotLocated, match="two places look alike: keyframe 6 with 90"):
        located([verdict(16, 0.0, 60), verdict(6, 0.0, 90)], PLACES, config)
    assert located([verdict(16, 0.0, 20), verdict(6, 0.0, 90)], PLACES, config).inliers == 90
    with pytest.raises(NotLocated, match="has no place in the map"):
        located([verdict(99, 0.0, 60)], PLACES, config)
    with pytest.raises(NotLocated, match="no candidate"):
        located([], PLACES, config)
    with pytest.raises(NotLocated, match="fits"):
        in_map(replace(verdict(3, 0.0, 5), covariance=None), np.eye(4))


def test_a_match_becomes_an_edge_whose_information_its_similarity_scales(model):
    engine, closer = relocalizer(model), closer_of(DRIVE)
    drive(engine)
    anchor_all(engine)
    image = GALLERY.view(5.1)
    (closure, *_) = (
        v
        for v in closer.compare(features(closer, image), engine.locate(image, 0))
        if v.state is ClosureState.VERIFIED
    )
    sigma = 0.5
    config = PoseGraphConfig.from_file(
        closure_model="similarity",
        similarity_translation_sigma=sigma,
        similarity_rotation_sigma=sigma,
    )
    information = np.linalg.inv(closure_edge(config, lie_group("se3"), closure).covariance)
    expected = closure_information(closure.probability, 1.0 / sigma**2).numpy()
    np.testing.assert_allclose(information, expected, rtol=1e-9)
