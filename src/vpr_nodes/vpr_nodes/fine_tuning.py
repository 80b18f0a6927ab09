"""fine_tuning: learns from recorded drives while the suite goes on, and swaps the descriptor.

Serves the action ``fine_tune``. Training runs in a process of its own at low priority. A model that
is better on the held-out drives is adopted: sequence_matching brings its places forward first, so
that no descriptor finds a memory it can't be compared with, then embedding describes with it.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from vpr_interfaces.action import FineTune
from vpr_interfaces.srv import AdoptModel

from vpr.config import FineTuningConfig
from vpr.learning.trainer import LOG_SUFFIX
from vpr.models.descriptor_model import DescriptorModel, DescriptorModelError
from vpr_nodes.answers import answer_of
from vpr_nodes.vpr_node import VprNode, run

POLL_PERIOD = 0.5  # s
NICENESS = 10  # the nodes go first
ADOPTERS = ("sequence_matching/adopt_model", "embedding/adopt_model")  # in this order
MOST_OF_ERROR = 500  # characters of what the training said last


@dataclass
class Training:
    """A training process and the goal it serves."""

    handle: Any
    process: subprocess.Popen[str]
    output: Any  # file with what it prints
    log: Path
    ended: Future = field(default_factory=Future)
    epochs_seen: int = 0


class FineTuningNode(VprNode):
    """Teaching the descriptor this robot's world, as a node."""

    Config = FineTuningConfig
    config: FineTuningConfig

    def setup(self) -> None:
        self.model = self.config.model
        self.training: Training | None = None
        group = ReentrantCallbackGroup()  # a goal that waits for other services' answers
        self.adopters = [
            self.create_client(AdoptModel, name, callback_group=group) for name in ADOPTERS
        ]
        self.server = ActionServer(
            self,
            FineTune,
            "fine_tune",
            execute_callback=self._execute,
            goal_callback=self._accept,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=group,
        )

    def start(self) -> None:
        self.every(POLL_PERIOD, self._poll)

    def finish(self) -> None:
        """End a training that runs; its checkpoint stays."""
        if getattr(self, "training", None) is not None:
            self.training.process.terminate()

    def _accept(self, _goal: FineTune.Goal) -> GoalResponse:
        return GoalResponse.ACCEPT if self.training is None else GoalResponse.REJECT

    async def _execute(self, handle: Any) -> FineTune.Result:
        goal, result = handle.request, FineTune.Result(model=self.model)
        self.training = self._begin(handle)
        await self.training.ended
        training, self.training = self.training, None
        if handle.is_cancel_requested:
            result.report = "canceled; the checkpoint is kept, the same goal goes on from it"
            handle.canceled()
            return result
        if training.process.returncode != 0:
            result.report = f"training failed: {_last_words(training.output)}"
            self.get_logger().error(result.report)
            handle.abort()
            return result
        try:
            await self._conclude(goal, handle, result)
        except DescriptorModelError as error:
            result.report = str(error)
        self.get_logger().info(result.report)
        self.health.last_reason = result.report
        handle.succeed()
        return result

    def _begin(self, handle: Any) -> Training:
        goal, out = handle.request, Path(handle.request.model)
        words = ["train", "descriptor", "--out", str(out)]
        for folder in goal.training:
            words += ["--data", folder]
        for folder in goal.held_out:
            words += ["--validation", folder]
        if self.model:
            words += ["--from", self.model]
        output = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115 - kept open
        words += ["--params-file", self._parameters_file(output.name)]
        process = subprocess.Popen(
            ["nice", f"-n{NICENESS}", sys.executable, "-m", "vpr.cli", *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Training(handle, process, output, out.with_suffix(LOG_SUFFIX))

    def _parameters_file(self, beside: str) -> str:
        """This node's own values over those of the suite's file, as they are trained with."""
        file = Path(beside).with_suffix(".yaml")
        suite = self.config.params_file
        document = yaml.safe_load(Path(suite).read_text()) if suite else {}
        document["/**/fine_tuning"] = {"ros__parameters": self.config.model_dump()}
        file.write_text(yaml.safe_dump(document))
        return str(file)

    def _poll(self) -> None:
        training = self.training
        if training is None or training.ended.done():
            return
        if training.handle.is_cancel_requested:
            training.process.terminate()
        rows = _rows(training.log)
        if len(rows) > training.epochs_seen:
            training.epochs_seen = len(rows)
            training.handle.publish_feedback(
                FineTune.Feedback(
                    stage="training",
                    epoch=int(rows[-1]["epoch"]),
                    epochs=self.config.epochs,
                    loss=float(rows[-1]["loss"]),
                    score=float(rows[-1]["score"] or 0.0),
                )
            )
        if training.process.poll() is not None:
            training.ended.set_result(None)

    async def _conclude(self, goal: FineTune.Goal, handle: Any, result: FineTune.Result) -> None:
        """Compare, adopt if better, and say what was gained."""
        found = DescriptorModel.load(Path(goal.model)).provenance
        before, after = found["validation_before"], found["validation_after"]
        result.score_before, result.score_after = _score(before), _score(after)
        result.better = result.score_after > result.score_before
        gained = ", ".join(
            f"{name} {before[name]:.3f} -> {after[name]:.3f}"
            for name in ("recall@1", "recall_at_100_precision", "average_precision")
        )
        result.report = f"on the held-out drives {gained}"
        if not result.better:
            result.report += "; not better: the suite keeps its model"
        elif goal.adopt:
            handle.publish_feedback(FineTune.Feedback(stage="adopting"))
            result.report += "; " + await self._adopt(goal.model, result)

    async def _adopt(self, path: str, result: FineTune.Result) -> str:
        for client in self.adopters:
            answer = await answer_of(self, client, AdoptModel.Request(path=path))
            if answer is None:
                return f"not adopted: {client.srv_name} is not there"
            if not answer.ok:
                return f"not adopted: {answer.message}"
            result.redescribed += answer.redescribed
            result.model = answer.model
        self.model, result.adopted = path, True
        return (
            f"adopted, {result.redescribed} places brought forward; set the parameter model to "
            f"{path} to start with it"
        )


def _rows(log: Path) -> list[dict[str, str]]:
    try:
        with log.open(newline="") as file:
            return list(csv.DictReader(file))
    except OSError:
        return []


def _score(figures: dict[str, float]) -> float:
    return (figures["average_precision"] + figures["recall_at_100_precision"]) / 2.0


def _last_words(output: Any) -> str:
    output.seek(0)
    said = " ".join(output.read().split())
    return str(said[-MOST_OF_ERROR:])


def main() -> None:
    """Process entry point."""
    run(FineTuningNode)
