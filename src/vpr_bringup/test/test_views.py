"""The RViz and Foxglove views show topics that exist."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIG = Path(__file__).resolve().parents[3] / "config"


@pytest.fixture(scope="module")
def topics() -> set[str]:
    """What the bag recorder records by default: every input and output of the suite."""
    nodes = yaml.safe_load((CONFIG / "vpr.yaml").read_text())
    recorded = nodes["/**/bag_recorder"]["ros__parameters"]["topics"]
    return {topic.lstrip("/") for topic in recorded}


def _values_of(key: str, tree: Any) -> list[Any]:
    if isinstance(tree, list):
        return [value for branch in tree for value in _values_of(key, branch)]
    if not isinstance(tree, dict):
        return []
    found = [tree[key]] if key in tree else []
    return found + [value for branch in tree.values() for value in _values_of(key, branch)]


def test_rviz_shows_topics_of_the_suite(topics: set[str]) -> None:
    view = yaml.safe_load((CONFIG / "vpr.rviz").read_text())
    shown = [topic["Value"] for topic in _values_of("Topic", view)]
    assert shown
    assert set(shown) <= topics


def test_rviz_asks_latched_topics_for_their_last_message() -> None:
    view = yaml.safe_load((CONFIG / "vpr.rviz").read_text())
    durability = {t["Value"]: t["Durability Policy"] for t in _values_of("Topic", view)}
    assert durability["path"] == durability["markers"] == "Transient Local"


def test_foxglove_shows_topics_of_the_suite(topics: set[str]) -> None:
    panels = json.loads((CONFIG / "foxglove.json").read_text())["configById"]
    shown = set(panels["3D!map"]["topics"])
    shown |= {path["value"] for series in _values_of("paths", panels) for path in series}
    for key in ("imageTopic", "topicPath", "topicToRender"):
        shown |= set(_values_of(key, panels))
    names = {path.lstrip("/").split(".")[0].split("{")[0] for path in shown}
    assert names <= topics


def test_foxglove_places_every_panel() -> None:
    layout = json.loads((CONFIG / "foxglove.json").read_text())

    def panels(part: Any) -> list[str]:
        return [part] if isinstance(part, str) else panels(part["first"]) + panels(part["second"])

    assert sorted(panels(layout["layout"])) == sorted(layout["configById"])
