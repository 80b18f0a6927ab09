"""Keyframes, closures and rulings in any order: the track and iSAM2 have to know the same."""

from dataclasses import replace

import gtsam
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from test_graph_pose_graph import circle, closure, drifting, keyframe, make_graph

from vpr.geometry import pose_from_xy_yaw, relative
from vpr.graph.case import Ruling
from vpr.graph.edges import EdgeKind
from vpr.graph.pose_graph import PoseGraph
from vpr.records import ClosureState

LAP = 20
TRUTH = circle(laps=6, steps_a_lap=LAP, radius=150.0)
ODOMETRY = drifting(TRUTH, seed=1, planar=True)


class GrowingMap(RuleBasedStateMachine):
    """A drive in laps, in one session after the other, and a jury that says anything."""

    def __init__(self):
        super().__init__()
        self.graph = make_graph()
        self.sessions = []  # of each keyframe
        self.case = None

    @rule(
        count=st.integers(1, 12), blind=st.booleans(), begin=st.integers(0, 7).map(lambda n: not n)
    )
    def drive(self, count, blind, begin):
        session = (self.sessions[-1] if self.sessions else 0) + begin
        for _ in range(min(count, len(TRUTH) - len(self.sessions))):
            i = len(self.sessions)
            self.graph.add_keyframe(keyframe(i, None if blind else ODOMETRY[i], session))
            self.sessions.append(session)

    @precondition(lambda self: len(self.sessions) > LAP)
    @rule(
        back=st.integers(0, 5), laps=st.integers(1, 3), wrong=st.sampled_from([0.0, 0.1, 2.0, 30.0])
    )
    def close(self, back, laps, wrong):
        query = len(self.sessions) - 1 - back
        reference = query - laps * LAP
        if reference < 0:
            return
        z = relative(TRUTH[reference], TRUTH[query]) @ pose_from_xy_yaw(wrong, 0.0, 0.0)
        sessions = {
            "query_session": self.sessions[query],
            "reference_session": self.sessions[reference],
        }
        self.graph.add_closure(replace(closure(query, reference, z), **sessions))

    @rule()
    def ask(self):
        self.case = self.graph.case() or self.case

    @precondition(lambda self: self.case is not None)
    @rule(choice=st.randoms(use_true_random=False))
    def follow(self, choice):
        case, self.case = self.case, None
        verdicts = {ClosureState.VERIFIED: {}, ClosureState.REJECTED: {}}
        for number, edge in zip(case.numbers, case.edges, strict=True):
            if edge.kind is EdgeKind.CLOSURE and choice.random() < 0.4:
                verdicts[edge.state][number] = "the jury says so"
        self.graph.follow(Ruling(*verdicts.values(), case.ids, case.poses))

    @precondition(lambda self: self.sessions)
    @rule(restored=st.booleans())
    def look(self, restored):
        self.graph.latest_covariance(self.sessions[-1])
        self.graph.settle()
        if restored:
            self.graph = PoseGraph.restore(self.graph.config, self.graph.state())
            self.case = None

    @invariant()
    def the_solver_has_what_the_track_handed_over(self):
        for smoother in self.graph._pieces.smoothers():
            keys = list(smoother._isam.calculateEstimate().keys())
            solved = {gtsam.Symbol(key).index() for key in keys}
            assert solved == set(smoother._track.solved())
        poses = np.array([node.pose for node in self.graph.nodes()])
        assert len(poses) == len(self.sessions)
        assert np.isfinite(poses).all()


GrowingMap.TestCase.settings = settings(max_examples=15, stateful_step_count=40, deadline=None)
TestGrowingMap = GrowingMap.TestCase
