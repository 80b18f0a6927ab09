"""What became of the closures: which pairs are closed, which wait, and whose verdict was reversed.

Closures are kept as they came, so that a later verdict can be told with all that was known.
"""

from __future__ import annotations

from dataclasses import replace

from vpr.graph.edges import Edge
from vpr.records import ClosureState, LoopClosure

Pair = tuple[int, int]


class Verdicts:
    """The closures of a graph by the pair of keyframes they tie, in either direction."""

    def __init__(self) -> None:
        self._told: dict[Pair, LoopClosure] = {}
        self._closed: set[Pair] = set()
        self._waiting: set[Pair] = set()  # for others to join two sessions with
        self._reversals: list[LoopClosure] = []

    def known(self, one: int, other: int) -> bool:
        """Whether two keyframes are closed already, or a closure of theirs waits."""
        pair = _pair(one, other)
        return pair in self._closed or pair in self._waiting

    def hear(self, closure: LoopClosure) -> None:
        """Remember a closure as it came."""
        self._told[_pair(closure.query_id, closure.reference_id)] = closure

    def accept(self, edge: Edge) -> None:
        """The closure is inside."""
        self._waiting.discard(_pair_of(edge))
        self._closed.add(_pair_of(edge))

    def refuse(self, edge: Edge) -> None:
        """The closure stays outside, where it waited too."""
        self._waiting.discard(_pair_of(edge))

    def wait(self, edge: Edge) -> None:
        """The closure waits for others."""
        self._waiting.add(_pair_of(edge))

    def waits(self, edge: Edge) -> bool:
        """Whether the closure waits."""
        return _pair_of(edge) in self._waiting

    def reverse(self, edge: Edge, key: str, retold: LoopClosure) -> None:
        """The verdict has changed to that of the edge.

        Args:
            key: short, for counting.
            retold: the closure as far as the graph knows it, if it never heard it.
        """
        verified = edge.state is ClosureState.VERIFIED
        if verified:
            self.accept(edge)
        else:
            self.refuse(edge)
            self._closed.discard(_pair_of(edge))
        told = self._told.get(_pair_of(edge), retold)
        rejected_by = "" if verified else key
        self._reversals.append(
            replace(told, state=edge.state, reason=edge.reason, rejected_by=rejected_by)
        )

    def take_reversals(self) -> list[LoopClosure]:
        """Closures whose verdict has changed since this was last asked, with their new one."""
        reversals, self._reversals = self._reversals, []
        return reversals


def _pair_of(edge: Edge) -> Pair:
    return _pair(edge.from_id, edge.to_id)


def _pair(a: int, b: int) -> Pair:
    return (a, b) if a < b else (b, a)
