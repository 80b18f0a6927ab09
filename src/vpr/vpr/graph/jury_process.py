"""The jury in a process of its own: gtsam holds Python's lock while it solves.

In a thread it would hold up the callbacks of a node for as long as it thinks.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Thread

from vpr.graph.case import Case, Ruling
from vpr.graph.jury import judge

NICENESS = 10  # the jury waits for the callbacks, never the other way round


class JuryError(RuntimeError):
    """The jury came to no ruling; the message says why."""


class JuryProcess:
    """Judges one case at a time; the process starts with the first and ends with its owner.

    Not thread-safe: one owner asks and takes.
    """

    def __init__(self, judge_case: Callable[[Case], Ruling] = judge) -> None:
        self._judge_case = judge_case
        self._connection: Connection | None = None
        self._thread: Thread | None = None
        self._answer: Ruling | str = ""

    @property
    def busy(self) -> bool:
        """Whether a case was given and its ruling not taken yet."""
        return self._thread is not None

    def give(self, case: Case) -> None:
        """Hand over a case; returns at once.

        Raises:
            JuryError: the last case's ruling was not taken yet.
        """
        if self.busy:
            raise JuryError("the jury is out")
        self._thread = Thread(target=self._ask, args=(case,), daemon=True)
        self._thread.start()

    def take(self) -> Ruling | None:
        """The ruling, once it is there; None while the jury is out, or has no case.

        Raises:
            JuryError: the jury failed; the next case gets a new one.
        """
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        if isinstance(self._answer, str):
            raise JuryError(self._answer)
        return self._answer

    def _ask(self, case: Case) -> None:
        try:
            if self._connection is None:
                self._connection = _started(self._judge_case)
            self._connection.send(case)
            self._answer = self._connection.recv()
        except (OSError, EOFError) as error:
            self._connection = None
            self._answer = f"the jury's process ended: {error!r}"


def _started(judge_case: Callable[[Case], Ruling]) -> Connection:
    context = get_context("spawn")  # a fork would inherit the middleware's threads half-way
    ours, theirs = context.Pipe()
    context.Process(target=_serve, args=(theirs, judge_case), daemon=True).start()
    theirs.close()
    return ours


def _serve(connection: Connection, judge_case: Callable[[Case], Ruling]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner; its end is ours
    os.nice(NICENESS)
    while True:
        try:
            case = connection.recv()
        except EOFError:
            return
        try:
            answer: Ruling | str = judge_case(case)
        except (RuntimeError, ValueError, ArithmeticError) as error:
            answer = f"the jury failed: {error}"
        try:
            connection.send(answer)
        except OSError:  # its owner ended while it thought
            return
