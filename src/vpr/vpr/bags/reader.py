"""Reading rosbag2 (MCAP, SQLite) and rosbag1 recordings without a ROS installation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag2 import ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from vpr.messages import stamp_ns


class BagError(ValueError):
    """A bag that cannot be used: missing, truncated, or without a needed topic."""


@dataclass(frozen=True)
class RawMessage:
    """One recorded message, still serialised as CDR."""

    topic: str
    type_name: str  # e.g. sensor_msgs/msg/Image
    timestamp_ns: int  # when it was recorded
    data: bytes


class BagReader:
    """A recording opened for reading; use it as a context manager.

    Args:
        path: rosbag2 folder, a single .mcap/.db3 file's folder, or a rosbag1 .bag file.

    Raises:
        BagError: nothing there, or not readable as a bag; says which.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.undecodable: Counter[str] = Counter()
        if not self.path.exists():
            raise BagError(f"no bag at {self.path}")
        if self.path.suffix in (".mcap", ".db3") and (self.path.parent / "metadata.yaml").exists():
            self.path = self.path.parent
        try:
            store = get_typestore(Stores.ROS2_JAZZY)
            self._reader = AnyReader([self.path], default_typestore=store)
            self._reader.open()
        except (AnyReaderError, ReaderError, OSError) as error:
            raise BagError(f"{self.path} is not a readable bag: {error}") from error
        except Exception as error:  # rosbags raises struct, assertion and codec errors on cut files
            raise BagError(f"{self.path} is truncated or damaged: {error!r}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reader.close()

    @property
    def topics(self) -> dict[str, str]:
        """Message type of each topic."""
        return {
            name: str(info.msgtype) for name, info in self._reader.topics.items() if info.msgtype
        }

    @property
    def message_count(self) -> int:
        """Messages in the whole recording."""
        return self._reader.message_count

    @property
    def duration_ns(self) -> int:
        """From the first to the last recorded message."""
        return self._reader.duration

    def require(self, topic: str) -> None:
        """Check that a topic is there.

        Raises:
            BagError: it is not; names the topics there are.
        """
        if topic not in self.topics:
            listed = ", ".join(f"{name} ({kind})" for name, kind in sorted(self.topics.items()))
            raise BagError(f"{self.path} has no topic {topic}; it has {listed or 'no topics'}")

    def raw(self, topics: Collection[str] | None = None) -> Iterator[RawMessage]:
        """Messages in recorded order as CDR bytes (rosbag1 messages are converted).

        Raises:
            BagError: the recording ends in the middle of a message.
        """
        chosen = [c for c in self._reader.connections if topics is None or c.topic in topics]
        try:
            for connection, timestamp, data in self._reader.messages(connections=chosen):
                cdr = data if self._reader.is2 else self._to_cdr(data, connection.msgtype)
                yield RawMessage(connection.topic, connection.msgtype, timestamp, bytes(cdr))
        except Exception as error:  # see __init__
            raise BagError(f"{self.path} is truncated or damaged: {error!r}") from error

    def _to_cdr(self, ros1: bytes, type_name: str) -> memoryview:
        return self._reader.typestore.ros1_to_cdr(ros1, type_name)

    def decode(self, message: RawMessage) -> Any:
        """The message as a rosbags dataclass with the fields of its ROS type."""
        return self._reader.typestore.deserialize_cdr(message.data, message.type_name)

    def messages(self, topic: str) -> Iterator[tuple[int, Any]]:
        """(recorded timestamp ns, decoded message) of one topic in order.

        A message whose bytes are not one of its type, as a transport may leave it, is passed over
        and counted in ``undecodable``.

        Raises:
            BagError: the topic is absent, or the recording is damaged.
        """
        self.require(topic)
        for message in self.raw([topic]):
            try:
                decoded = self.decode(message)
            except SerdeError:
                self.undecodable[topic] += 1
                continue
            yield message.timestamp_ns, decoded


def header_stamp_ns(message: Any) -> int:
    """Integer nanoseconds of a decoded message's header stamp."""
    return stamp_ns(message.header.stamp)
