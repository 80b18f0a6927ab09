"""Pose graphs in g2o's text format, 2-D and 3-D, read strictly and written back.

Information matrices keep the order of the file in the text (x y yaw; x y z and the rotation), and
are held in GTSAM's tangent order (x y yaw; rotation, translation), as ``gtsam.readG2o`` does.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gtsam
import numpy as np
from numpy.typing import NDArray

from vpr.graph.edges import PoseGraphError

Matrix = NDArray[np.float64]

_ROTATION_FIRST = np.array([3, 4, 5, 0, 1, 2])
_UNIT_TOLERANCE = 0.01  # a quaternion further than this from length 1 is damage, not rounding
_MAX_POSITION = 1e8  # m, further than round the Earth
_MAX_INFORMATION = 1e16  # 10 nm
_MIN_INFORMATION = 1e-12  # 1000 km: says nothing
_MIN_RATIO = 1e-15  # of eigenvalues; below, double precision can't tell it from zero


class G2oError(PoseGraphError):
    """A g2o file that can't be taken; the message begins with the file and the line."""


@dataclass(frozen=True)
class Measurement:
    """A measured from_T_to; ``information`` (d, d) in GTSAM's tangent order."""

    from_id: int
    to_id: int
    measured: Any  # gtsam.Pose2 or gtsam.Pose3
    information: Matrix


@dataclass(frozen=True)
class _Dialect:
    """How vertices and edges of one dimension are written."""

    vertex: str
    edge: str
    dimension: int  # of the tangent space
    numbers: int  # that give a pose

    def element(self, numbers: list[float]) -> Any:
        if max(map(abs, numbers)) > _MAX_POSITION:
            raise ValueError("pose is out of range")
        if self.dimension == 3:
            return gtsam.Pose2(*numbers)
        quaternion = np.array(numbers[3:])
        length = float(np.linalg.norm(quaternion))
        if abs(length - 1.0) > _UNIT_TOLERANCE:
            raise ValueError(f"quaternion has length {length:.3g}, not 1")
        x, y, z, w = quaternion / length
        return gtsam.Pose3(gtsam.Rot3.Quaternion(w, x, y, z), np.array(numbers[:3]))

    def numbers_of(self, element: Any) -> list[float]:
        if self.dimension == 3:
            return [element.x(), element.y(), element.theta()]
        q = element.rotation().toQuaternion()
        return [*element.translation().tolist(), q.x(), q.y(), q.z(), q.w()]

    def information(self, upper: list[float]) -> Matrix:
        result = np.zeros((self.dimension, self.dimension))
        rows, columns = np.triu_indices(self.dimension)
        result[rows, columns] = result[columns, rows] = upper
        eigenvalues = np.linalg.eigvalsh(result)
        smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
        if largest > _MAX_INFORMATION:
            raise ValueError(f"information is out of range (eigenvalue {largest:.3g})")
        if smallest <= _MIN_RATIO * largest:
            raise ValueError(f"information is not positive definite (eigenvalue {smallest:.3g})")
        if smallest < _MIN_INFORMATION:
            raise ValueError(f"information is out of range (eigenvalue {smallest:.3g})")
        return result if self.dimension == 3 else result[np.ix_(_ROTATION_FIRST, _ROTATION_FIRST)]

    def upper_of(self, information: Matrix) -> list[float]:
        if self.dimension == 6:  # the permutation is its own inverse
            information = information[np.ix_(_ROTATION_FIRST, _ROTATION_FIRST)]
        upper: list[float] = information[np.triu_indices(self.dimension)].tolist()
        return upper


_PLANE = _Dialect("VERTEX_SE2", "EDGE_SE2", dimension=3, numbers=3)
_SPACE = _Dialect("VERTEX_SE3:QUAT", "EDGE_SE3:QUAT", dimension=6, numbers=7)
_DIALECTS = {tag: dialect for dialect in (_PLANE, _SPACE) for tag in (dialect.vertex, dialect.edge)}


@dataclass(frozen=True)
class G2oGraph:
    """A connected pose graph.

    ``order`` lists the vertices so that each is tied to an earlier one, in ascending ids where
    that is possible. ``tree[i]`` is the number of the measurement that ties ``order[i + 1]`` to
    its latest predecessor: on a drive, the odometry. ``trusted`` holds these and all others
    between vertices that follow each other; what is left are closures.
    """

    dimension: int  # 3 in the plane, 6 in space
    initial: Mapping[int, Any]  # poses of the file; without vertices, along the tree
    measurements: tuple[Measurement, ...]
    order: tuple[int, ...]
    tree: tuple[int, ...]
    trusted: frozenset[int]

    @property
    def closures(self) -> list[int]:
        """Numbers of the measurements that are closures, ascending."""
        return [i for i in range(len(self.measurements)) if i not in self.trusted]


def assembled(
    dimension: int,
    measurements: Sequence[Measurement],
    initial: Mapping[int, Any],
    first: int | None = None,
) -> G2oGraph:
    """A graph of measurements.

    Args:
        dimension: 3 in the plane, 6 in space.
        initial: poses to begin from, of all vertices; when empty, they are set out along the tree.
        first: the vertex that is held; by default that with the smallest id.

    Raises:
        PoseGraphError: the graph is in several pieces.
    """
    ends = (end for m in measurements for end in (m.from_id, m.to_id))
    vertices = set(initial) or set(ends)
    order, tree = _spanning_order(measurements, min(vertices) if first is None else first)
    if len(order) < len(vertices):
        stray = min(vertices.difference(order))
        raise PoseGraphError(
            f"disconnected: {len(vertices) - len(order)} of {len(vertices)} "
            f"vertices, such as {stray}, are not tied to vertex {order[0]}"
        )
    place = {vertex: i for i, vertex in enumerate(order)}
    trusted = set(tree)
    for i, m in enumerate(measurements):
        if abs(place[m.from_id] - place[m.to_id]) == 1:
            trusted.add(i)
    return G2oGraph(
        dimension,
        dict(initial) or _along(measurements, order, tree, dimension),
        tuple(measurements),
        tuple(order),
        tuple(tree),
        frozenset(trusted),
    )


def read_g2o(path: Path) -> G2oGraph:
    """Read a pose graph; a file without any vertex is set out along its odometry.

    Raises:
        G2oError: an unknown tag, a number that is none, an information matrix that is not positive
            definite, a vertex that is missing or given twice, or a graph in several pieces.
        OSError: the file can't be read.
    """
    parser = _Parser(path)
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            parser.take(line.decode("ascii").split(), number)
        except ValueError as error:
            raise G2oError(f"{path}:{number}: {error}") from None
    return parser.graph()


class _Parser:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._dialect: _Dialect | None = None
        self._vertices: dict[int, Any] = {}
        self._fixed: dict[int, int] = {}  # vertex -> line
        self._measurements: list[Measurement] = []
        self._lines: list[int] = []

    def take(self, words: list[str], line: int) -> None:
        if not words or words[0].startswith("#"):
            return
        if words[0] == "FIX":
            self._fixed.update({_identity(word): line for word in words[1:]})
            return
        dialect = _DIALECTS.get(words[0])
        if dialect is None:
            raise ValueError(f"unknown tag {words[0]}; known are FIX, {', '.join(_DIALECTS)}")
        if self._dialect not in (None, dialect):
            raise ValueError(f"{words[0]} in a file that began otherwise: 2-D and 3-D don't mix")
        self._dialect = dialect
        if words[0] == dialect.vertex:
            self._take_vertex(dialect, words)
        else:
            self._take_edge(dialect, words)
            self._lines.append(line)

    def _take_vertex(self, dialect: _Dialect, words: list[str]) -> None:
        numbers = _numbers(words, identities=1, count=dialect.numbers)
        vertex = _identity(words[1])
        if vertex in self._vertices:
            raise ValueError(f"vertex {vertex} is given a second time")
        self._vertices[vertex] = dialect.element(numbers)

    def _take_edge(self, dialect: _Dialect, words: list[str]) -> None:
        entries = dialect.dimension * (dialect.dimension + 1) // 2
        numbers = _numbers(words, identities=2, count=dialect.numbers + entries)
        from_id, to_id = _identity(words[1]), _identity(words[2])
        if from_id == to_id:
            raise ValueError(f"edge ties vertex {from_id} to itself")
        measured = dialect.element(numbers[: dialect.numbers])
        information = dialect.information(numbers[dialect.numbers :])
        self._measurements.append(Measurement(from_id, to_id, measured, information))

    def graph(self) -> G2oGraph:
        if self._dialect is None or not self._measurements:
            raise G2oError(f"{self._path}: has no edge")
        self._check_ends()
        try:
            return assembled(
                self._dialect.dimension,
                self._measurements,
                self._vertices,
                min(self._fixed, default=None),
            )
        except PoseGraphError as error:
            raise G2oError(f"{self._path}: {error}") from None

    def _check_ends(self) -> None:
        if self._vertices:
            for m, line in zip(self._measurements, self._lines, strict=True):
                for end in (m.from_id, m.to_id):
                    if end not in self._vertices:
                        raise G2oError(f"{self._path}:{line}: vertex {end} is missing")
        tied = {end for m in self._measurements for end in (m.from_id, m.to_id)}
        for vertex, line in self._fixed.items():
            if vertex not in tied:
                raise G2oError(f"{self._path}:{line}: fixed vertex {vertex} is missing")


def _identity(word: str) -> int:
    if not word.isdigit() or int(word) >= 2**63:
        raise ValueError(f"'{word}' is no vertex id")
    return int(word)


def _numbers(words: list[str], identities: int, count: int) -> list[float]:
    found = words[1 + identities :]
    if len(found) != count:
        raise ValueError(f"{words[0]} has {len(found)} numbers after its ids, not {count}")
    try:
        numbers = [float(word) for word in found]
    except ValueError:
        raise ValueError(f"{words[0]} has a value that is no number") from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"{words[0]} has a value that is not finite")
    return numbers


def _spanning_order(measurements: Sequence[Measurement], first: int) -> tuple[list[int], list[int]]:
    """Vertices reached from the first, smallest id next, and the measurement each hangs on."""
    ties: dict[int, list[int]] = {}
    for i, m in enumerate(measurements):
        ties.setdefault(m.from_id, []).append(i)
        ties.setdefault(m.to_id, []).append(i)
    place: dict[int, int] = {}
    order: list[int] = []
    tree: list[int] = []
    frontier = [first]
    while frontier:
        vertex = heapq.heappop(frontier)
        if vertex in place:
            continue
        earlier = [(place.get(_other(measurements[i], vertex), -1), -i) for i in ties[vertex]]
        if order:
            tree.append(-max(earlier)[1])
        place[vertex] = len(order)
        order.append(vertex)
        for i in ties[vertex]:
            if (other := _other(measurements[i], vertex)) not in place:
                heapq.heappush(frontier, other)
    return order, tree


def _other(measurement: Measurement, vertex: int) -> int:
    return measurement.to_id if measurement.from_id == vertex else measurement.from_id


def _along(
    measurements: Sequence[Measurement], order: list[int], tree: list[int], dimension: int
) -> dict[int, Any]:
    """Poses along the tree, the first at the origin."""
    poses = {order[0]: gtsam.Pose2() if dimension == _PLANE.dimension else gtsam.Pose3()}
    for vertex, i in zip(order[1:], tree, strict=True):
        poses[vertex] = continued(measurements[i], vertex, poses[_other(measurements[i], vertex)])
    return poses


def continued(measurement: Measurement, vertex: int, known: Any) -> Any:
    """Pose of one end of a measurement from the pose of the other."""
    if vertex == measurement.to_id:
        return known.compose(measurement.measured)
    return known.compose(measurement.measured.inverse())


def write_g2o(path: Path, graph: G2oGraph, poses: Mapping[int, Any], kept: set[int]) -> None:
    """Write all poses and the kept measurements; the file appears whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text("\n".join(_lines(graph, poses, kept)) + "\n", encoding="ascii")
    partial.replace(path)


def _lines(graph: G2oGraph, poses: Mapping[int, Any], kept: set[int]) -> Iterator[str]:
    dialect = _PLANE if graph.dimension == _PLANE.dimension else _SPACE
    for vertex in sorted(poses):
        yield _line(dialect.vertex, [vertex], dialect.numbers_of(poses[vertex]))
    yield f"FIX {graph.order[0]}"
    for i in sorted(kept):
        m = graph.measurements[i]
        numbers = dialect.numbers_of(m.measured) + dialect.upper_of(m.information)
        yield _line(dialect.edge, [m.from_id, m.to_id], numbers)


def _line(tag: str, identities: list[int], numbers: list[float]) -> str:
    return " ".join([tag, *map(str, identities), *(f"{number:.12g}" for number in numbers)])
