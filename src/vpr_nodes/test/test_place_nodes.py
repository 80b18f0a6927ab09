"""sequence_matching and pose_graph: sessions, missing and bad odometry, closures, maps."""

from itertools import pairwise

import numpy as np
import pytest
from conftest import LATCHED
from geometry_msgs.msg import TransformStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry, Path
from rclpy.node import Node
from rclpy.task import Future
from vpr_interfaces.msg import Descriptor, Keyframe, LoopClosure, PlaceMatches, PoseGraph
from vpr_interfaces.srv import LoadMap, SaveMap

from vpr.models.calibration import ReducedMap, SequenceCalibration
from vpr.models.descriptor_model import DescriptorModel
from vpr_nodes.answers import answer_of
from vpr_nodes.vpr_node import REMEMBERED

SECOND = 10**9


def stamp(header, nanoseconds):
    header.stamp.sec, header.stamp.nanosec = nanoseconds // SECOND, nanoseconds % SECOND


def odometry(nanoseconds, x):
    message = Odometry()
    stamp(message.header, nanoseconds)
    message.header.frame_id = "odom"
    message.pose.pose.position.x = float(x)
    message.pose.pose.orientation.w = 1.0
    return message


def descriptor(nanoseconds, place, model="net@1"):
    values = np.random.default_rng(place).standard_normal(64).astype(np.float32)
    message = Descriptor(model=model, data=(values / np.linalg.norm(values)).tolist())
    stamp(message.header, nanoseconds)
    return message


def keyframe(identity, nanoseconds, x, session=0):
    message = Keyframe(id=identity, session=session, has_odometry=True)
    stamp(message.header, nanoseconds)
    message.odometry.pose.position.x = float(x)
    message.odometry.pose.orientation.w = 1.0
    message.descriptor = descriptor(nanoseconds, identity)
    return message


def closure(query, reference, x, state=LoopClosure.VERIFIED):
    message = LoopClosure(
        query_id=query, reference_id=reference, state=state, has_relative_pose=True
    )
    message.relative_pose.pose.position.x = float(x)
    message.relative_pose.pose.orientation.w = 1.0
    message.relative_pose.covariance = np.diag([0.01] * 3 + [0.001] * 3).ravel().tolist()
    return message


def everybody_listens(probe):
    """loop_closure, pose_graph and the probe hear keyframes, and the two senders are heard."""
    probe.until(
        lambda: (
            probe.node.count_subscribers("/keyframe") == 3
            and probe.node.count_subscribers("/descriptor") == 1
            and probe.node.count_subscribers("/odometry") == 2
        )
    )
    probe.spin(2.0)  # until the nodes have found each other too, which the probe cannot see


def test_odometry_is_interpolated_to_the_image_and_slow_frames_are_skipped(probe, nodes):
    nodes.start("sequence_matching", keyframe_translation=0.5)
    keyframes = probe.hear(Keyframe, "keyframe")
    pose = probe.publisher(Odometry, "odometry")
    seen = probe.publisher(Descriptor, "descriptor")
    for i in range(5):  # 1 m/s, odometry every 0.2 s
        pose.publish(odometry(SECOND + i * SECOND // 5, 0.2 * i))
    seen.publish(descriptor(SECOND + SECOND // 10, 0))  # half way between two poses
    seen.publish(descriptor(SECOND + SECOND // 5, 1))  # 0.1 m later: too close
    seen.publish(descriptor(SECOND + 7 * SECOND // 10, 2))
    probe.until(lambda: len(keyframes) == 2)
    assert keyframes[0].has_odometry
    assert keyframes[0].odometry.pose.position.x == pytest.approx(0.1)
    assert keyframes[1].odometry.pose.position.x == pytest.approx(0.7)
    assert [k.id for k in keyframes] == [0, 1]


def test_without_odometry_every_frame_is_kept_and_diagnostics_say_so(probe, nodes):
    nodes.start("sequence_matching")
    keyframes = probe.hear(Keyframe, "keyframe")
    matches = probe.hear(PlaceMatches, "matches")
    seen = probe.publisher(Descriptor, "descriptor")
    for i in range(4):
        seen.publish(descriptor(SECOND * (i + 1), i))
    probe.until(lambda: len(keyframes) == 4 and len(matches) == 4)
    assert not any(k.has_odometry for k in keyframes)
    assert "no loop" in matches[-1].explanation
    probe.until(
        lambda: "odometry never received" in probe.status("sequence_matching").get("message", "")
    )


def test_a_bag_that_loops_begins_a_new_session_and_loses_nothing(probe, nodes):
    nodes.start("sequence_matching", exclude_recent_time=0.0, exclude_recent_keyframes=0)
    keyframes = probe.hear(Keyframe, "keyframe")
    matches = probe.hear(PlaceMatches, "matches")
    seen = probe.publisher(Descriptor, "descriptor")
    for _ in range(2):
        for i in range(12):
            seen.publish(descriptor(100 * SECOND + i * SECOND, i))
    probe.until(lambda: len(keyframes) == 24 and len(matches) == 24)
    assert [k.session for k in keyframes] == [0] * 12 + [1] * 12
    assert [k.id for k in keyframes] == list(range(24))
    best = matches[-1].candidates[0]
    assert (best.reference_id, best.reference_session) == (11, 0)


@pytest.mark.parametrize("method", ["single", "delta", "sequence_matching"])
def test_one_line_of_the_configuration_picks_the_method(probe, nodes, method):
    nodes.start("sequence_matching", method=method)
    matches = probe.hear(PlaceMatches, "matches")
    seen = probe.publisher(Descriptor, "descriptor")
    for _ in range(2):
        for i in range(12):
            seen.publish(descriptor(100 * SECOND + i * SECOND, i))
    probe.until(lambda: len(matches) == 24)
    best = matches[-1].candidates[0]
    assert (best.reference_id, best.source == best.SINGLE) == (11, method != "sequence_matching")


def test_sequences_of_dense_keyframes_have_the_probability_that_a_model_was_calibrated_to(
    probe, nodes, tmp_path
):
    part = ReducedMap(distances=(-9.0, 9.0), probabilities=(0.77, 0.77))
    of_sequences = SequenceCalibration(
        best=part, further=part, method="sequence_matching", sequence_length=7, spacing=5.0
    )
    DescriptorModel("net@1", (), sequence_calibration=of_sequences).save(tmp_path / "m.safetensors")
    nodes.start("sequence_matching", model=str(tmp_path / "m.safetensors"))
    matches = probe.hear(PlaceMatches, "matches")
    pose = probe.publisher(Odometry, "odometry")
    seen = probe.publisher(Descriptor, "descriptor")
    for i in range(60):  # a keyframe each 0.25 m, views that change each 2 m, the same way twice
        pose.publish(odometry(SECOND * (i + 1), 0.25 * i))
        seen.publish(descriptor(SECOND * (i + 1), i % 30 // 8))
        probe.spin(0.02)
    probe.until(lambda: len(matches) == 60)
    best = matches[-1].candidates[0]
    assert best.source == best.SEQUENCE
    assert best.probability == pytest.approx(0.77)


def test_a_method_that_is_not_there_or_lacks_its_file_is_refused_at_start(nodes):
    for method, said in (("magic", "hvpr"), ("seqmatchnet", "vpr train sequence")):
        child = nodes.start("sequence_matching", method=method)
        output, _ = child.communicate(timeout=40)
        assert child.returncode == 2
        assert said in output


def test_views_of_another_model_than_the_map_are_refused_with_both_names(probe, nodes):
    nodes.start("sequence_matching")
    keyframes = probe.hear(Keyframe, "keyframe")
    seen = probe.publisher(Descriptor, "descriptor")
    seen.publish(descriptor(SECOND, 0))
    probe.until(lambda: len(keyframes) == 1)
    seen.publish(descriptor(2 * SECOND, 1, model="other@2"))
    both = "descriptor is of model other@2, the remembered places are of net@1"
    probe.until(lambda: probe.status("sequence_matching").get("last_drop") == both)


def test_bad_descriptors_and_odometry_are_counted_and_explained(probe, nodes):
    child = nodes.start("sequence_matching")
    keyframes = probe.hear(Keyframe, "keyframe")
    seen = probe.publisher(Descriptor, "descriptor")
    pose = probe.publisher(Odometry, "odometry")
    seen.publish(descriptor(SECOND, 0))
    probe.until(lambda: len(keyframes) == 1)
    pose.publish(odometry(SECOND, float("nan")))
    seen.publish(descriptor(2 * SECOND, 1, model="other@2"))
    broken = descriptor(3 * SECOND, 2)
    broken.data[0] = float("nan")
    seen.publish(broken)
    seen.publish(descriptor(4 * SECOND, 3))
    probe.until(lambda: len(keyframes) == 2)
    probe.until(lambda: probe.status("sequence_matching").get("dropped DescriptorError") == "2")
    assert probe.status("sequence_matching")["dropped ValueError"] == "1"
    assert child.poll() is None


@pytest.mark.parametrize("executor", ["waiting", "events"])
def test_a_closure_bends_the_path_and_moves_map_to_odom(probe, nodes, executor):
    nodes.start("pose_graph", publish_period=0.05, executor=executor)
    paths = probe.hear(Path, "path", LATCHED)
    graphs = probe.hear(PoseGraph, "graph", LATCHED)
    corrections = probe.hear(TransformStamped, "map_to_odom")
    frames = probe.publisher(Keyframe, "keyframe", REMEMBERED)
    closures = probe.publisher(LoopClosure, "loop_closures")
    pose = probe.publisher(Odometry, "odometry")
    # a closure that arrives before its keyframes is kept for them
    closures.publish(closure(10, 0, 9.5))
    for i in range(11):
        frames.publish(keyframe(i, SECOND * (i + 1), i))
    probe.until(lambda: any(e.kind == e.CLOSURE for g in graphs[-1:] for e in g.edges))
    assert len(graphs[-1].nodes) == 11
    assert graphs[-1].nodes[10].pose.position.x < 9.9
    assert corrections[-1].header.frame_id == "map"
    assert corrections[-1].child_frame_id == "odom"
    for i in range(12, 15):  # it follows at a limited rate, with the odometry
        pose.publish(odometry(i * SECOND, 10))
    probe.until(lambda: corrections[-1].header.stamp.sec == 14)
    assert corrections[-1].transform.translation.x < -0.1
    probe.until(lambda: len(paths[-1].poses) == 11)
    assert paths[-1].poses[0].header.frame_id == "map"


def test_rejected_and_contradicting_closures_leave_the_path_alone(probe, nodes):
    nodes.start("pose_graph", publish_period=0.05)
    graphs = probe.hear(PoseGraph, "graph", LATCHED)
    verdicts = probe.hear(LoopClosure, "loop_closures")
    frames = probe.publisher(Keyframe, "keyframe", REMEMBERED)
    closures = probe.publisher(LoopClosure, "loop_closures")
    for i in range(11):
        frames.publish(keyframe(i, SECOND * (i + 1), i))
    probe.until(lambda: bool(graphs) and len(graphs[-1].nodes) == 11)
    closures.publish(closure(9, 0, 3.0, LoopClosure.REJECTED))
    closures.publish(closure(10, 0, -80.0))
    probe.until(lambda: any(e.kind == e.REJECTED_CLOSURE for e in graphs[-1].edges))
    refused = [e for e in graphs[-1].edges if e.kind == e.REJECTED_CLOSURE]
    assert len(refused) == 1
    assert "contradicts" in refused[0].reason
    assert graphs[-1].nodes[10].pose.position.x == pytest.approx(10.0, abs=0.05)
    verdict = verdicts[-1]
    assert (verdict.query_id, verdict.state) == (10, LoopClosure.REJECTED)
    assert verdict.rejected_by == "inconsistent"
    assert verdict.reason == refused[0].reason


def test_a_keyframe_with_the_id_of_another_is_dropped_and_counted(probe, nodes):
    nodes.start("pose_graph", publish_period=0.05)
    graphs = probe.hear(PoseGraph, "graph", LATCHED)
    frames = probe.publisher(Keyframe, "keyframe", REMEMBERED)
    for identity, seconds in ((0, 1), (1, 2), (1, 2), (1, 3), (2, 4)):
        frames.publish(keyframe(identity, seconds * SECOND, seconds))
    probe.until(lambda: bool(graphs) and len(graphs[-1].nodes) == 3)
    probe.until(lambda: probe.status("pose_graph").get("dropped PoseGraphError") == "1")
    assert "keyframe 1 is here already" in probe.status("pose_graph")["message"]


def test_a_wrong_closure_inside_is_retracted_and_map_to_odom_never_jumps(probe, nodes):
    limits = {"correction_max_speed": 0.5, "correction_max_turn_rate": 0.05}
    nodes.start("pose_graph", publish_period=0.05, retrial_period=0.3, **limits)
    graphs = probe.hear(PoseGraph, "graph", LATCHED)
    corrections = probe.hear(TransformStamped, "map_to_odom")
    jumps = probe.hear(TransformStamped, "map_to_odom_jump")
    verdicts = probe.hear(LoopClosure, "loop_closures")
    frames = probe.publisher(Keyframe, "keyframe", REMEMBERED)
    closures = probe.publisher(LoopClosure, "loop_closures")
    pose = probe.publisher(Odometry, "odometry")

    def drive(begin, end):
        """Keyframes a metre and a second apart, odometry five times a second."""
        for i in range(5 * begin, 5 * end):
            pose.publish(odometry(SECOND + i * SECOND // 5, i / 5))
            if i % 5 == 0:
                frames.publish(keyframe(i // 5, SECOND + i * SECOND // 5, i / 5))
            probe.spin(0.01)
        probe.until(lambda: bool(graphs) and len(graphs[-1].nodes) == end)

    drive(0, 50)
    closures.publish(closure(48, 5, 44.5))  # a metre and a half too long: drift would allow that
    probe.until(lambda: any(e.kind == e.CLOSURE for e in graphs[-1].edges))
    drive(50, 60)
    assert corrections[-1].transform.translation.x > 0.5  # it was believed
    for query in range(52, 59):
        closures.publish(closure(query, query - 44, 44.0))
    probe.until(lambda: "retracted" in {v.rejected_by for v in verdicts})
    wrong = next(v for v in verdicts if v.rejected_by == "retracted")
    assert (wrong.query_id, wrong.reference_id, wrong.state) == (48, 5, LoopClosure.REJECTED)
    assert "retracted: chi2" in wrong.reason
    drive(60, 66)
    probe.until(lambda: abs(graphs[-1].nodes[59].pose.position.x - 59) < 0.1)
    inside = {e.to_id for e in graphs[-1].edges if e.kind == e.CLOSURE}
    assert inside == set(range(52, 59))
    status = probe.status("pose_graph")
    assert status["retracted"] == "1"
    assert status["published closures rejected"] >= "1"
    assert abs(corrections[-1].transform.translation.x) < 0.1
    steps = [(c.header.stamp, c.transform.translation.x) for c in corrections]
    for (early, x), (late, next_x) in pairwise(steps):
        seconds = late.sec - early.sec + (late.nanosec - early.nanosec) / 1e9
        assert abs(next_x - x) <= 0.5 * max(seconds, 0.0) + 1e-6
    assert not jumps


def test_a_map_is_saved_loaded_and_a_new_drive_finds_its_place_in_it(probe, nodes, tmp_path):
    folder = str(tmp_path / "map")
    suite = ("sequence_matching", "loop_closure", "pose_graph")
    first = [nodes.start(name, publish_period=0.05) if name == "pose_graph" else nodes.start(name)
             for name in suite]  # fmt: skip
    keyframes = probe.hear(Keyframe, "keyframe")
    matches = probe.hear(PlaceMatches, "matches")
    graphs = probe.hear(PoseGraph, "graph", LATCHED)
    seen = probe.publisher(Descriptor, "descriptor")
    pose = probe.publisher(Odometry, "odometry")
    everybody_listens(probe)
    for i in range(12):  # frame by frame: odometry that comes late is not waited for long
        pose.publish(odometry(SECOND * (i + 1), i))
        seen.publish(descriptor(SECOND * (i + 1), i))
        probe.until(lambda count=i + 1: len(keyframes) == count)
    probe.until(lambda: bool(graphs) and len(graphs[-1].nodes) == 12)
    answer = probe.call(SaveMap, "save_map", SaveMap.Request(path=folder))
    assert answer.ok, answer.message
    assert answer.keyframes == 12
    for child in first:
        child.terminate()
        child.wait(10)

    graphs.clear()
    keyframes.clear()
    matches.clear()
    for name in suite:
        extra = {"publish_period": 0.05} if name == "pose_graph" else {}
        nodes.start(name, map=folder, **extra)
    everybody_listens(probe)
    for i in range(8):
        pose.publish(odometry(1000 * SECOND + SECOND * i, 100 + i))
        seen.publish(descriptor(1000 * SECOND + SECOND * i, i))
        probe.until(lambda count=i + 1: len(keyframes) == len(matches) == count)
    assert (keyframes[0].id, keyframes[0].session) == (12, 1)
    assert matches[-1].candidates[0].reference_id == 7
    probe.until(lambda: bool(graphs) and len(graphs[-1].nodes) == 20)
    assert not graphs[-1].nodes[-1].anchored
    for query, reference in ((18, 6), (19, 7)):
        message = closure(query, reference, 0.5)
        message.query_session = 1
        probe.publisher(LoopClosure, "loop_closures").publish(message)
    probe.until(lambda: graphs[-1].nodes[-1].anchored)
    assert graphs[-1].nodes[-1].pose.position.x == pytest.approx(7.5, abs=0.1)


def test_a_node_that_comes_late_or_again_hears_what_it_missed_once(probe, nodes):
    frames = probe.node.create_publisher(Keyframe, "keyframe", REMEMBERED)
    graphs = probe.hear(PoseGraph, "graph", LATCHED)
    for i in range(11):
        frames.publish(keyframe(i, SECOND * (i + 1), i))
    nodes.start("pose_graph", publish_period=0.05)
    probe.until(lambda: bool(graphs) and len(graphs[-1].nodes) == 11)
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert probe.call(ChangeState, "/pose_graph/change_state", request).success
    frames.publish(keyframe(11, SECOND * 12, 11))
    probe.until(lambda: len(graphs[-1].nodes) == 12)
    assert not any(key.startswith("dropped") for key in probe.status("pose_graph"))


def test_a_damaged_map_is_refused_in_words(probe, nodes, tmp_path):
    nodes.start("pose_graph")
    (tmp_path / "manifest.json").write_text("{}")
    for path, said in ((tmp_path, "not the manifest"), (tmp_path / "none", "not a map")):
        answer = probe.call(LoadMap, "load_map", LoadMap.Request(path=str(path)))
        assert not answer.ok
        assert said in answer.message
    child = nodes.start("sequence_matching", map=str(tmp_path))
    output, _ = child.communicate(timeout=40)
    assert child.returncode == 2
    assert "manifest" in output


def test_saving_without_the_other_nodes_says_which_is_missing(probe, nodes, tmp_path):
    nodes.start("pose_graph")
    answer = probe.call(SaveMap, "save_map", SaveMap.Request(path=str(tmp_path / "map")))
    assert not answer.ok
    assert "not running: loop_closure, sequence_matching" in answer.message


def test_a_node_that_lives_and_does_not_answer_is_not_waited_for_for_ever(probe, monkeypatch):
    async def never_answer(_request, response):
        await Future()
        return response

    monkeypatch.setattr("vpr_nodes.answers.PATIENCE", 0.5)
    stand_in = Node("hangs", context=probe.context)
    stand_in.create_service(SaveMap, "~/save_part", never_answer)
    probe.executor.add_node(stand_in)
    client = probe.node.create_client(SaveMap, "hangs/save_part")
    probe.until(client.service_is_ready)
    task = probe.executor.create_task(answer_of(probe.node, client, SaveMap.Request()))
    probe.until(task.done)
    assert task.result() is None


def test_a_node_that_stops_while_a_map_is_saved_is_not_waited_for(probe, nodes, tmp_path):
    asked = []

    async def never_answer(request, response):
        asked.append(request)
        await Future()
        return response

    stand_ins = [
        Node(name, context=probe.context) for name in ("loop_closure", "sequence_matching")
    ]
    for node in stand_ins:
        node.create_service(SaveMap, "~/save_part", never_answer)
        probe.executor.add_node(node)
    nodes.start("pose_graph")
    client = probe.node.create_client(SaveMap, "save_map")
    probe.until(client.service_is_ready)
    answers = []
    while not asked:  # until pose_graph has found both
        answers.append(client.call_async(SaveMap.Request(path=str(tmp_path / "map"))))
        probe.until(lambda: bool(asked) or answers[-1].done())
    for node in stand_ins:
        probe.executor.remove_node(node)
        node.destroy_node()
    probe.until(answers[-1].done)
    assert "loop_closure gave no answer: it stopped" in answers[-1].result().message
    again = probe.call(SaveMap, "save_map", SaveMap.Request(path=str(tmp_path / "map")))
    assert "not running: loop_closure, sequence_matching" in again.message
