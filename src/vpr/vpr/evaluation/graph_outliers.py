"""What false closures do to a trajectory: believed, left to plain GNC, and judged."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any

import gtsam
import numpy as np

from vpr.evaluation.made_graphs import MadeGraph
from vpr.evaluation.trajectory import StampedPoses, absolute_trajectory_error
from vpr.geometry import pose_from_xy_yaw
from vpr.graph.g2o import G2oGraph
from vpr.graph.optimization import optimize
from vpr.graph.outliers import with_false_closures
from vpr.graph.retrial import gate_of
from vpr.graph.solution import factor_of, initial_values, poses_of, prior_of

GROUP = 10  # false closures that agree with each other
PEER_LIMIT = 60  # s of CPU time for a peer, which takes hours on some graphs


def outlier_row(name: str, made: MadeGraph, share: float, group: int, seed: int) -> dict[str, Any]:
    """One row: ATE in m without false closures, and with them; precision and recall of the jury."""
    clean = optimize(made.graph, "none", incremental=False)
    graph, false = with_false_closures(made.graph, share, seed, group)
    started = time.process_time()  # other work on the machine does not count
    judged = optimize(graph, "gnc", incremental=True)
    spent = time.process_time() - started
    true_kept = len(judged.kept - false)
    return {
        "graph": name,
        "share": share,
        "group": group,
        "seed": seed,
        "closures": len(made.graph.closures),
        "clean_m": trajectory_error(clean.poses, made),
        "odometry_m": trajectory_error(made.graph.initial, made),
        "judged_m": trajectory_error(judged.poses, made),
        "precision": true_kept / len(judged.kept) if judged.kept else 1.0,
        "recall": true_kept / len(made.graph.closures),
        "time_s": spent,
        "retrials_s": sum(judged.retrials),
    }


def peer_row(made: MadeGraph, share: float, group: int, seed: int) -> dict[str, float | None]:
    """ATE in m of those who believe all, by Levenberg-Marquardt, and of gtsam's GNC as it comes.

    Both begin at the initial poses; None where one does not end within ``PEER_LIMIT``.
    """
    graph, _ = with_false_closures(made.graph, share, seed, group)
    return {
        "believed_m": _peer_error(_believed, graph, made),
        "gnc_m": _peer_error(plain_gnc, graph, made),
    }


def _believed(graph: G2oGraph) -> Mapping[int, Any]:
    return optimize(graph, "none", incremental=False).poses


def _peer_error(
    peer: Callable[[G2oGraph], Mapping[int, Any]], graph: G2oGraph, made: MadeGraph
) -> float | None:
    """ATE in m of a peer; None where it does not end within ``PEER_LIMIT``."""
    context = multiprocessing.get_context("fork")  # nothing has to be handed over
    ours, theirs = context.Pipe(duplex=False)

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (PEER_LIMIT, PEER_LIMIT + 1))
        theirs.send(trajectory_error(peer(graph), made))

    process = context.Process(target=work, daemon=True)
    process.start()
    theirs.close()
    try:
        return float(ours.recv())
    except EOFError:
        return None
    finally:
        process.join()


def trajectory_error(poses: Mapping[int, Any], made: MadeGraph) -> float:
    """RMSE of positions in m after rigid alignment."""
    stamps = tuple(range(len(made.graph.order)))
    estimate, truth = (
        StampedPoses(stamps, tuple(_matrix(source[vertex]) for vertex in made.graph.order))
        for source in (poses, made.truth)
    )
    return absolute_trajectory_error(estimate, truth)


def _matrix(element: Any) -> Any:
    if isinstance(element, gtsam.Pose2):
        return pose_from_xy_yaw(element.x(), element.y(), element.theta())
    return np.asarray(element.matrix())


def plain_gnc(graph: G2oGraph) -> Mapping[int, Any]:
    """Poses by gtsam's graduated non-convexity with its own parameters, odometry trusted."""
    nonlinear = gtsam.NonlinearFactorGraph()
    nonlinear.add(prior_of(graph))
    for i in sorted(graph.trusted) + graph.closures:
        nonlinear.add(factor_of(graph, graph.measurements[i]))
    parameters = gtsam.GncLMParams(gtsam.LevenbergMarquardtParams())
    parameters.setKnownInliers(list(range(1 + len(graph.trusted))))
    optimizer = gtsam.GncLMOptimizer(nonlinear, initial_values(graph, graph.order), parameters)
    optimizer.setInlierCostThresholds(gate_of(graph) / 2)
    return poses_of(graph, optimizer.optimize())
