"""Bags that are missing, cut short, foreign, or lack the topic."""

import numpy as np
import pytest

from vpr.bags.messages import SensorMessages
from vpr.bags.reader import BagError, BagReader, header_stamp_ns
from vpr.bags.writer import BagWriter


@pytest.fixture
def bag(tmp_path):
    """A bag of twenty fixes."""
    path = tmp_path / "bag"
    with BagWriter(path) as writer:
        messages = SensorMessages(writer.typestore)
        writer.add_topic("/fix", "sensor_msgs/msg/NavSatFix")
        for i in range(20):
            fix = messages.fix(i * 10**9, np.array([49.0, 8.0, i]), np.ones(3), fixed=True)
            writer.write("/fix", i * 10**9, fix)
    return path


def test_messages_come_back_in_order_with_their_stamps(bag):
    with BagReader(bag) as reader:
        assert reader.topics == {"/fix": "sensor_msgs/msg/NavSatFix"}
        assert reader.message_count == 20
        found = list(reader.messages("/fix"))
    assert [header_stamp_ns(message) for _, message in found] == [i * 10**9 for i in range(20)]
    assert [message.altitude for _, message in found] == list(range(20))


def test_a_topic_that_is_not_there_names_those_that_are(bag):
    with BagReader(bag) as reader, pytest.raises(BagError, match=r"/image.*it has /fix \(sensor"):
        list(reader.messages("/image"))


def test_the_mcap_file_itself_may_be_named(bag):
    with BagReader(bag / "bag.mcap") as reader:
        assert reader.message_count == 20


def test_a_missing_bag_is_said(tmp_path):
    with pytest.raises(BagError, match="no bag at"):
        BagReader(tmp_path / "none")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_bag_is_refused_not_half_read(bag, share):
    file = bag / "bag.mcap"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BagError, match=r"truncated|damaged|not a readable"), BagReader(bag) as r:
        list(r.raw())


def test_a_folder_or_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no bag")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(BagError):
            BagReader(path)
