"""Writing rosbag2 recordings (MCAP, metadata version 9) without a ROS installation."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from vpr.bags.reader import BagError

_UNLIMITED = QosTime(sec=9223372036, nsec=854775807)  # how rosbag2 writes an infinite duration


def offered_qos(depth: int = 10, transient_local: bool = False) -> Qos:
    """Reliable QoS, which every subscriber accepts, best-effort ones included."""
    durability = QosDurability.TRANSIENT_LOCAL if transient_local else QosDurability.VOLATILE
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE,
        durability,
        _UNLIMITED,
        _UNLIMITED,
        QosLiveliness.AUTOMATIC,
        _UNLIMITED,
        avoid_ros_namespace_conventions=False,
    )


class BagWriter:
    """A new recording; use it as a context manager.

    Everything is written beside ``path`` and moved there when the block ends well; after an
    error nothing is left behind.

    Args:
        path: the bag's folder, which must not exist yet unless ``overwrite``.
        definitions: .msg texts of types that ROS 2 Jazzy does not bring, by full type name.

    Raises:
        BagError: something is already there, or the folder cannot be made.
    """

    def __init__(
        self, path: Path, definitions: Mapping[str, str] | None = None, overwrite: bool = False
    ) -> None:
        self.path = Path(path)
        self.overwrite = overwrite
        if self.path.exists() and not overwrite:
            raise BagError(f"{self.path} exists already; remove it or ask to overwrite it")
        self.typestore = get_typestore(Stores.ROS2_JAZZY)
        for name, text in (definitions or {}).items():
            self.typestore.register(get_types_from_msg(text, name))
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._scratch = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=".bag-"))
        except OSError as error:
            raise BagError(f"cannot write {self.path}: {error.strerror}") from error
        # the MCAP file inside is named after this folder
        self._unfinished = self._scratch / self.path.name
        self._writer = Writer(self._unfinished, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is not None:
                self._writer.abort()
                return
            self._writer.close()
            if self.overwrite and self.path.exists():
                self.path.replace(self._scratch / "replaced")
            self._unfinished.replace(self.path)
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def add_topic(self, topic: str, type_name: str, qos: Qos | None = None) -> None:
        """Declare a topic before its first message; ``qos`` defaults to :func:`offered_qos`.

        Raises:
            BagError: the type is unknown; its definition must be given to the constructor.
        """
        if type_name not in self.typestore.fielddefs:
            raise BagError(f"{topic}: no definition of {type_name} was given")
        self._connections[topic] = self._writer.add_connection(
            topic, type_name, typestore=self.typestore, offered_qos_profiles=[qos or offered_qos()]
        )

    def write(self, topic: str, timestamp_ns: int, message: Any) -> None:
        """Append a message made of the classes in ``typestore.types``."""
        type_name = self._connections[topic].msgtype
        self.write_raw(topic, timestamp_ns, self.typestore.serialize_cdr(message, type_name))

    def write_raw(self, topic: str, timestamp_ns: int, data: bytes | memoryview) -> None:
        """Append a message that is serialised as CDR already."""
        self._writer.write(self._connections[topic], timestamp_ns, data)
