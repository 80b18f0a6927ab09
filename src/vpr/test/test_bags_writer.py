"""Bags are whole or absent, and read back as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpr.bags.reader import BagError, BagReader
from vpr.bags.writer import BagWriter, offered_qos

TYPE = "std_msgs/msg/String"


def write(path: Path, text: str, **options: bool) -> None:
    with BagWriter(path, **options) as bag:
        bag.add_topic("/said", TYPE, offered_qos(transient_local=True))
        bag.write("/said", 5, bag.typestore.types[TYPE](data=text))


def test_messages_come_back(tmp_path: Path) -> None:
    write(tmp_path / "a" / "bag", "hello")
    with BagReader(tmp_path / "a" / "bag") as bag:
        assert [(stamp, m.data) for stamp, m in bag.messages("/said")] == [(5, "hello")]
    assert [entry.name for entry in (tmp_path / "a").iterdir()] == ["bag"]


def test_serialised_messages_of_a_custom_type_come_back(tmp_path: Path) -> None:
    definitions = {"robot_msgs/msg/Level": "float32 volts\nstring[] notes\n"}
    with BagWriter(tmp_path / "bag", definitions) as bag:
        bag.add_topic("/level", "robot_msgs/msg/Level")
        level = bag.typestore.types["robot_msgs/msg/Level"](volts=12.5, notes=["low"])
        bag.write_raw("/level", 7, bag.typestore.serialize_cdr(level, "robot_msgs/msg/Level"))
    with BagReader(tmp_path / "bag") as bag:
        ((_, read),) = bag.messages("/level")
    assert (read.volts, read.notes) == (12.5, ["low"])


def test_an_existing_bag_is_kept_unless_told(tmp_path: Path) -> None:
    write(tmp_path / "bag", "old")
    with pytest.raises(BagError, match="exists already"):
        write(tmp_path / "bag", "new")
    write(tmp_path / "bag", "new", overwrite=True)
    with BagReader(tmp_path / "bag") as bag:
        assert [m.data for _, m in bag.messages("/said")] == ["new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag"]


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> None:
        with BagWriter(tmp_path / "bag") as bag:
            bag.add_topic("/said", TYPE)
            raise RuntimeError("unplugged")

    with pytest.raises(RuntimeError, match="unplugged"):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_type_is_named(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="other_msgs/msg/Thing"), BagWriter(tmp_path / "b") as bag:
        bag.add_topic("/thing", "other_msgs/msg/Thing")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BagError, match="cannot write"), BagWriter(tmp_path / "file" / "bag"):
        pass
