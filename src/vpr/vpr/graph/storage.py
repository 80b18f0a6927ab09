"""The pose graph in a map: rows are added, and what changed of older rows is written behind them.

A closure moves poses that were saved before, and may be refused later. Such rows are written once
more to a table of changes; reading applies them in order. A save thus costs what is new and what
moved, and a map whose changes outweigh it is due for being written anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.graph.edges import PoseGraphError
from vpr.graph.state import GraphState
from vpr.maps.folder import Part, PartDigest, PartWriter

ROW = "row"  # column of a table of changes: which row of the other it replaces
CHANGES = "_changes"
EDGE = "edge_"  # arrays of this name are of edges, all others of nodes
REASON, WORDS = "reasons", "words"
MOVED = 1e-4  # m, and as much of a rotation matrix; what moved by less is not written again
MOST_CHANGES = 4  # changed rows for each row of a table, until it is better written anew

Arrays = dict[str, NDArray[Any]]


def save_graph(writer: PartWriter, state: GraphState) -> PartDigest:
    """Write what a map does not have yet of a graph.

    Raises:
        PoseGraphError: it is the map of another graph.
        MapError: as ``PartWriter.append``.
    """
    metadata = state.metadata()
    reasons = {int(edge): str(words) for edge, words in metadata.pop("reasons", {}).items()}
    part = writer.saved_part()
    known = _read_reasons(part) if part is not None else {}
    for table, arrays in _tables(state.arrays()).items():
        before = {} if part is None else _read_table(part, table)
        _save_table(writer, table, arrays, before)
    _save_reasons(writer, {e: words for e, words in reasons.items() if known.get(e) != words})
    return writer.finish(len(state.ids), metadata)


def load_graph(part: Part) -> GraphState:
    """The graph of a map.

    Raises:
        PoseGraphError: the graph contradicts itself.
        MapError: a table is missing or damaged.
    """
    arrays: Arrays = {}
    for table in ("nodes", "edges"):
        arrays |= _read_table(part, table)
    reasons = {str(edge): words for edge, words in _read_reasons(part).items()}
    return GraphState.from_arrays(arrays, part.metadata | {"reasons": reasons})


def is_worn(part: Part) -> bool:
    """Whether so many rows were changed that writing the map anew makes it smaller."""
    return any(
        part.table(name + CHANGES).rows > MOST_CHANGES * part.table(name).rows
        for name in ("nodes", "edges")
        if name + CHANGES in part.tables
    )


def _tables(arrays: Arrays) -> dict[str, Arrays]:
    edges = {name: array for name, array in arrays.items() if name.startswith(EDGE)}
    return {"nodes": {n: a for n, a in arrays.items() if n not in edges}, "edges": edges}


def _save_table(writer: PartWriter, table: str, arrays: Arrays, before: Arrays) -> None:
    saved = writer.saved(table)
    rows = min(len(array) for array in arrays.values())
    if saved > rows:
        raise PoseGraphError(f"the map has {saved} {table}, here are only {rows}")
    changed = np.zeros(saved, bool)
    for name, old in before.items():
        changed |= _differs(arrays[name][:saved], old)
    if "ids" in before and not np.array_equal(arrays["ids"][:saved], before["ids"]):
        raise PoseGraphError("the map's keyframes are others than those of the graph")
    writer.append(table, {name: array[saved:] for name, array in arrays.items()})
    if changed.any():
        where = np.flatnonzero(changed)
        columns = {name: array[where] for name, array in arrays.items()}
        writer.append(table + CHANGES, {ROW: where, **columns})


def _differs(new: NDArray[Any], old: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) which rows are not the same; NaN is the same as NaN."""
    if new.dtype.kind == "f":
        same = np.isclose(new, old, rtol=0.0, atol=MOVED, equal_nan=True)
    else:
        same = new == old
    return ~np.asarray(same.reshape(len(new), -1).all(axis=1))


def _read_table(part: Part, name: str) -> Arrays:
    arrays = {column: np.array(rows) for column, rows in part.table(name).arrays().items()}
    if name + CHANGES in part.tables:
        changes = dict(part.table(name + CHANGES).arrays())
        rows = changes.pop(ROW)
        if changes.keys() != arrays.keys():
            raise PoseGraphError(f"changes of the map's {name} are of other columns")
        if len(rows) and not 0 <= rows.min() <= rows.max() < part.table(name).rows:
            raise PoseGraphError(f"a change is of none of the map's {name}")
        for column, values in changes.items():
            arrays[column][rows] = values  # where a row comes twice the later one stands
    return arrays


def _save_reasons(writer: PartWriter, reasons: dict[int, str]) -> None:
    encoded = {edge: words.encode() for edge, words in reasons.items()}
    lengths = np.array([len(words) for words in encoded.values()], np.int64)
    writer.append(REASON, {"edge": np.array(list(encoded), np.int64), "length": lengths})
    writer.append(WORDS, {"text": np.frombuffer(b"".join(encoded.values()), np.uint8)})


def _read_reasons(part: Part) -> dict[int, str]:
    columns = part.table(REASON).arrays()
    text = part.table(WORDS).arrays()["text"].tobytes()
    ends = np.cumsum(columns["length"])
    if (len(ends) and int(ends[-1]) != len(text)) or (columns["length"] < 0).any():
        raise PoseGraphError("the reasons of the map's edges don't add up")
    starts = ends - columns["length"]
    return {
        int(edge): text[start:end].decode(errors="replace")
        for edge, start, end in zip(columns["edge"], starts, ends, strict=True)
    }
