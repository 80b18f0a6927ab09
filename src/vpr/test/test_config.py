"""One source of configuration: complete, checked, and refused in words."""

import pytest
import yaml

from vpr.config import (
    COMMAND_CONFIGS,
    DEFAULT_CONFIG_FILE,
    EVERY_NODE,
    NODE_CONFIGS,
    ConfigError,
    EmbeddingConfig,
    SequenceMatchingConfig,
)


@pytest.mark.parametrize("config", NODE_CONFIGS + COMMAND_CONFIGS, ids=lambda c: c.node_name)
def test_shipped_values_are_complete_and_valid(config):
    assert config.from_file().node_name == config.node_name


def test_every_shipped_section_belongs_to_a_node_or_a_command():
    sections = {key.rsplit("/", 1)[-1] for key in yaml.safe_load(DEFAULT_CONFIG_FILE.read_text())}
    owners = NODE_CONFIGS + COMMAND_CONFIGS
    assert sections == {config.node_name for config in owners} | {EVERY_NODE}


def test_every_shipped_value_says_what_it_is():
    before = ""
    for line in DEFAULT_CONFIG_FILE.read_text().splitlines():
        if line.startswith("    ") and ":" in line and not line.strip().startswith("#"):
            assert "#" in line or before.strip().startswith("#"), f"no comment: {line.strip()}"
        before = line


def test_a_file_lays_its_values_over_the_shipped_ones(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("/robot1/embedding:\n  ros__parameters:\n    image_width: 640\n")
    config = EmbeddingConfig.from_file(file)
    assert config.image_width == 640
    assert config.backbone == EmbeddingConfig.from_file().backbone


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"image_width": 5}, r"embedding\.image_width = 5: .*greater than or equal to 32"),
        ({"device": "tpu"}, r"embedding\.device = 'tpu': .*'auto', 'cpu' or 'cuda'"),
        ({"image_widht": 3}, r"embedding\.image_widht = 3: .*known: .*image_width"),
        ({"image_width": "wide"}, r"embedding\.image_width = 'wide': .*integer"),
    ],
)
def test_a_wrong_value_is_refused_with_name_value_and_range(overrides, said):
    with pytest.raises(ConfigError, match=said):
        EmbeddingConfig.from_file(**overrides)


def test_all_wrong_values_are_said_at_once():
    with pytest.raises(ConfigError, match=r"top_k.*;.*sequence_length|sequence_length.*;.*top_k"):
        SequenceMatchingConfig.from_file(top_k=0, sequence_length=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2]", "not a ROS 2 parameter file"),
        ("embedding: 3", "ros__parameters"),
        ("a: [", "not YAML"),
    ],
)
def test_a_file_that_is_no_parameter_file_is_refused(tmp_path, content, said):
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=said):
        EmbeddingConfig.from_file(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        EmbeddingConfig.from_file(tmp_path / "none.yaml")
