"""Configuration: one model for each node, one YAML file for all values.

The models declare type, range and meaning; they hold no defaults. Every value, with its unit and
why, is in ``config/vpr.yaml`` (installed with this package as ``default_config``), a ROS 2
parameter file keyed by node, so that a workstation script and a robot read the same numbers.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vpr.semantics.classes import class_indices

DEFAULT_CONFIG_FILE = Path(__file__).parent / "default_config" / "vpr.yaml"
EVERY_NODE = "**"  # the section of a parameter file that all nodes read

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
LearningRate = Annotated[float, Field(gt=0.0, le=100.0)]  # more overflows single precision


class ConfigError(ValueError):
    """A wrong configuration: names the node, the parameter, the value and the allowed range."""


@cache
def _read_yaml(path: Path) -> dict[str, dict[str, Any]]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is not a ROS 2 parameter file: no node names at its top")
    nodes: dict[str, dict[str, Any]] = {}
    for key, value in document.items():
        if not isinstance(value, dict) or "ros__parameters" not in value:
            raise ConfigError(f"{path}: '{key}' has no 'ros__parameters'")
        nodes[str(key).rsplit("/", 1)[-1]] = dict(value["ros__parameters"] or {})
    return nodes


class NodeConfig(BaseModel):
    """Base of every node's configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    node_name: ClassVar[str]
    autostart: bool
    diagnostics_period: Positive
    niceness: int = Field(ge=0, le=19)
    executor: Literal["waiting", "events"]

    @classmethod
    def from_file(cls, path: Path | None = None, **overrides: Any) -> Self:
        """The node's section of a params file laid over the shipped values, then ``overrides``.

        Raises:
            ConfigError: unreadable file, unknown parameter, or a value out of its range.
        """
        values: dict[str, Any] = {}
        files = [DEFAULT_CONFIG_FILE] if path is None else [DEFAULT_CONFIG_FILE, Path(path)]
        for file in files:
            nodes = _read_yaml(file.resolve())
            everyone = nodes.get(EVERY_NODE, {})
            values |= {name: everyone[name] for name in everyone if name in cls.model_fields}
            values |= nodes.get(cls.node_name, {})
        return cls.checked(values | overrides)

    @classmethod
    def checked(cls, values: dict[str, Any]) -> Self:
        """Validate a full set of values.

        Raises:
            ConfigError: as ``node.parameter = value: what is allowed``.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            lines = [cls._explain(problem) for problem in error.errors()]
            raise ConfigError("; ".join(lines)) from error

    @classmethod
    def _explain(cls, problem: Any) -> str:
        name = ".".join(str(part) for part in problem["loc"]) or "(whole section)"
        known = ""
        if problem["type"] == "extra_forbidden":
            known = f" (known: {', '.join(cls.model_fields)})"
        return f"{cls.node_name}.{name} = {problem['input']!r}: {problem['msg']}{known}"


def shared_parameters() -> frozenset[str]:
    """Names in the section that all nodes read; a node passes over those it has no use for."""
    return frozenset(_read_yaml(DEFAULT_CONFIG_FILE.resolve()).get(EVERY_NODE, {}))


class ImageInput(NodeConfig):
    """How a node takes images in."""

    image_transport: Literal["auto", "raw", "compressed"]


class SegmentationConfig(ImageInput):
    """segmentation: image to attention map."""

    node_name: ClassVar[str] = "segmentation"
    source: Literal[
        "laplacian_of_gaussian",
        "semantic_mask",
        "semantic_boundaries",
        "learned",
        "encoder_decoder",
    ]
    attention_width: int = Field(ge=16, le=1920)
    diffusion_sigma: Annotated[float, Field(ge=0.0, le=50.0)]
    floor: Fraction
    depth_topic_used: bool
    depth_scale: Positive
    segmenter: str
    segmenter_weights: str
    network_width: int = Field(ge=32, le=2048)
    static_classes: Annotated[list[str], Field(min_length=1)]
    attention_weights: str
    overlay: bool
    device: Literal["auto", "cpu", "cuda"]
    runtime: Literal["auto", "pytorch", "openvino"]
    mixed_precision: bool
    threads: int = Field(ge=0, le=256)

    @field_validator("static_classes")
    @classmethod
    def _known_classes(cls, names: list[str]) -> list[str]:
        class_indices(names)
        return names


class EmbeddingConfig(ImageInput):
    """embedding: image (and attention) to descriptor."""

    node_name: ClassVar[str] = "embedding"
    backbone: str
    weights: str
    image_width: int = Field(ge=32, le=2048)
    image_height: int = Field(ge=32, le=2048)
    layers: Annotated[list[str], Field(min_length=1)]
    layer_grids: list[Annotated[str, Field(pattern=r"^[1-9][0-9]?x[1-9][0-9]?$")]]  # rows x columns
    layer_gem_p: list[Annotated[float, Field(ge=1.0, le=20.0)]]
    layer_weights: list[Positive]
    attention: Literal["none", "pooling", "multiplied", "mask_channel"]
    whitening: str
    model: str
    device: Literal["auto", "cpu", "cuda"]
    runtime: Literal["auto", "pytorch", "openvino"]
    mixed_precision: bool
    threads: int = Field(ge=0, le=256)

    @model_validator(mode="after")
    def _one_of_each_for_every_layer(self) -> Self:
        for name in ("layer_grids", "layer_gem_p", "layer_weights"):
            if len(getattr(self, name)) != len(self.layers):
                raise ValueError(f"{name} needs a value for each of the {len(self.layers)} layers")
        return self


class CandidateChoice(NodeConfig):
    """Which of the scored places a node hands on as candidates, and how probable it calls them."""

    prior_places: NonNegative
    probability_midpoint: float
    probability_width: Positive
    further_midpoint: float
    further_width: Positive
    candidate_separation: int = Field(ge=1)
    exclude_recent_time: NonNegative
    exclude_recent_keyframes: int = Field(ge=0)
    top_k: int = Field(ge=1, le=100)
    min_probability: Fraction


class SequenceMatchingConfig(CandidateChoice):
    """sequence_matching: descriptors to keyframes and place matches."""

    node_name: ClassVar[str] = "sequence_matching"
    keyframe_translation: NonNegative
    keyframe_rotation: NonNegative
    keyframe_max_interval: Positive
    keyframe_novelty: Annotated[float, Field(ge=0.0, le=2.0)]
    odometry_wait: NonNegative
    odometry_max_gap: Positive
    odometry_max_speed: Positive
    fix_max_gap: Positive
    method: Literal[
        "single",
        "smoothing",
        "delta",
        "sequence_matching",
        "seqnet_single",
        "seqmatchnet",
        "hvpr",
    ]
    transform: str
    shortlister: str
    hierarchy_size: int = Field(ge=1, le=10_000)
    sequence_length: int = Field(ge=1, le=500)
    min_speed_ratio: Annotated[float, Field(gt=0.0, le=1.0)]
    max_speed_ratio: Annotated[float, Field(ge=1.0, le=10.0)]
    speed_steps: int = Field(ge=1, le=51)
    search_reverse: bool
    contrast_window: int = Field(ge=0, le=10_000)
    alignment_step: NonNegative
    shortlist_above: int = Field(ge=0)
    shortlist_size: int = Field(ge=1, le=2048)
    shortlist_clusters: int = Field(ge=1, le=4096)
    time_jump_tolerance: NonNegative
    map: str
    model: str

    @model_validator(mode="after")
    def _speeds_reachable(self) -> Self:
        if self.speed_steps == 1 and (self.min_speed_ratio, self.max_speed_ratio) != (1.0, 1.0):
            raise ValueError("speed_steps = 1 needs min_speed_ratio = max_speed_ratio = 1.0")
        return self


class SequenceTrainingConfig(NodeConfig):
    """vpr train sequence: a transform of frozen descriptors for sequence matching."""

    node_name: ClassVar[str] = "sequence_training"
    loss: Literal["single", "seqmatch"]
    mining: Literal["single", "seqmatch"]
    form: Literal["triplet", "contrastive"]
    window: int = Field(ge=1, le=50)
    outputs: int = Field(ge=8, le=8192)
    sequence_length: int = Field(ge=1, le=500)
    margin: Annotated[float, Field(gt=0.0, le=2.0)]
    negatives: int = Field(ge=1, le=1000)
    negative_distance: int = Field(ge=0, le=10_000)
    stretch: int = Field(ge=2, le=20_000)
    epochs: int = Field(ge=1, le=100_000)
    learning_rate: LearningRate
    weight_decay: NonNegative
    whitening: Fraction
    noise: Annotated[float, Field(ge=0.0, le=2.0)]
    seed: int = Field(ge=0)


class LoopClosureConfig(ImageInput):
    """loop_closure: place matches to verified or rejected closures with a relative pose."""

    node_name: ClassVar[str] = "loop_closure"
    camera_in_base: Annotated[list[float], Field(min_length=7, max_length=7)]
    assumed_horizontal_fov: Annotated[float, Field(gt=5.0, lt=179.0)]
    depth_topic_used: bool
    depth_scale: Positive
    feature_wait: NonNegative
    verdict_timeout: Positive
    features: Literal["orb", "xfeat"]
    matcher: Literal["nearest", "lightglue"]
    device: Literal["auto", "cpu", "cuda"]
    feature_count: int = Field(ge=50, le=5000)
    feature_contrast: int = Field(ge=1, le=100)
    feature_min_width: int = Field(ge=64, le=4096)
    feature_max_width: int = Field(ge=64, le=4096)
    thumbnail_width: int = Field(ge=0, le=640)
    match_ratio: Annotated[float, Field(gt=0.0, le=1.0)]
    match_max_distance: int = Field(ge=1, le=256)
    match_min_similarity: Fraction
    match_min_confidence: Fraction
    match_max_turn: Annotated[float, Field(gt=0.0, le=3.15)]
    match_max_scale: Annotated[float, Field(gt=1.0, le=20.0)]
    inlier_threshold: Annotated[float, Field(gt=0.0, le=20.0)]
    layout_tolerance: Positive
    min_aligned: int = Field(ge=3, le=5000)
    min_inliers: int = Field(ge=8, le=5000)
    min_inliers_unconfirmed: int = Field(ge=8, le=5000)
    xfeat_evidence: Annotated[float, Field(ge=1.0, le=20.0)]
    lightglue_evidence: Annotated[float, Field(ge=1.0, le=20.0)]
    min_inlier_share: Fraction
    min_inlier_coverage: Fraction
    max_translation: Positive
    max_rotation: Annotated[float, Field(gt=0.0, le=3.15)]
    max_view_scale: Annotated[float, Field(ge=1.0, le=10.0)]
    overlay: bool
    overlay_min_overlap: Fraction
    overlay_min_agreement: Fraction
    overlay_min_correlation: Annotated[float, Field(ge=-1.0, le=1.0)]
    expected_loops: int = Field(ge=0, le=100)
    expected_reach: Positive
    expected_share: Fraction
    expected_separation: int = Field(ge=1, le=1000)
    expected_min_driven: NonNegative
    expected_max_drift: NonNegative
    expected_slack: NonNegative
    expected_min_overlap: Fraction
    expected_min_agreement: Fraction
    expected_min_correlation: Annotated[float, Field(ge=-1.0, le=1.0)]
    expected_probability: Annotated[float, Field(gt=0.0, le=1.0)]
    min_landmarks: int = Field(ge=6, le=5000)
    min_landmark_coverage: Fraction
    triangulation_baseline: Positive
    pixel_noise: Positive
    depth_noise: Positive
    odometry_noise: NonNegative
    odometry_rotation_noise: Positive
    odometry_scale_noise: Fraction
    focal_noise: Fraction
    assumed_focal_noise: Fraction
    weak_translation: Positive
    weak_rotation: Positive
    gps_tolerance: NonNegative
    drift_translation: NonNegative
    drift_translation_floor: Positive
    drift_rotation: NonNegative
    drift_rotation_floor: Positive
    agreeing_closures: int = Field(ge=1, le=20)
    agreeing_closures_without_odometry: int = Field(ge=1, le=20)
    agreement_keyframes: int = Field(ge=1, le=1000)
    agreement_translation: Positive
    agreement_rotation: Positive
    pose_prior_used: bool
    pose_prior_sigmas: Positive
    map: str

    @model_validator(mode="after")
    def _matcher_of_these_features(self) -> Self:
        if self.matcher == "lightglue" and self.features != "xfeat":
            raise ValueError("matcher = 'lightglue' was trained for features = 'xfeat'")
        return self

    @property
    def expects_loops(self) -> bool:
        """Whether views with depth are tried where the graph expects them to overlap."""
        return self.overlay and self.expected_loops > 0

    def for_these_features(self) -> Self:
        """The same with the counts of inliers as the chosen features and matcher need them."""
        factor = 1.0
        if self.features == "xfeat":
            factor = self.xfeat_evidence if self.matcher == "nearest" else self.lightglue_evidence
        counts = ("min_inliers", "min_aligned", "min_inliers_unconfirmed")
        return self.model_copy(
            update={name: math.ceil(factor * getattr(self, name)) for name in counts}
        )


class PoseGraphConfig(NodeConfig):
    """pose_graph: keyframe odometry and closures to a corrected trajectory."""

    node_name: ClassVar[str] = "pose_graph"
    mode: Literal["se3", "se2"]
    closure_model: Literal["measured", "weak", "similarity", "direction"]
    odometry_translation_sigma: Positive
    odometry_translation_per_metre: NonNegative
    odometry_rotation_sigma: Positive
    odometry_rotation_per_metre: NonNegative
    odometry_rotation_per_radian: NonNegative
    odometry_max_speed: Positive
    missing_odometry_translation_sigma: Positive
    missing_odometry_rotation_sigma: Annotated[float, Field(gt=0.0, le=3.2)]
    closure_translation_sigma: Positive
    closure_rotation_sigma: Positive
    weak_translation_sigma: Positive
    weak_rotation_sigma: Positive
    similarity_translation_sigma: Positive
    similarity_rotation_sigma: Positive
    robust_kernel: Literal["cauchy", "huber", "dcs", "none"]
    robust_width: Positive
    gate_probability: Annotated[float, Field(gt=0.5, lt=1.0)]
    recent_closures: int = Field(ge=2, le=1000)
    joining_closures: int = Field(ge=1, le=100)
    retrial_period: NonNegative
    gps: bool
    gps_sigma: Positive
    gps_min_sigma: Positive
    gps_max_sigma: Positive
    gps_distance: NonNegative
    gps_spread: Positive
    gps_tilt_sigma: Positive
    relinearize_translation: Positive
    relinearize_rotation: Positive
    relinearize_every: int = Field(ge=1, le=1000)
    publish_period: Positive
    correction_notice: NonNegative
    correction_max_speed: Positive
    correction_max_turn_rate: Positive
    correction_jump: Positive
    autosave_period: NonNegative
    map: str


class PoseRegressionConfig(ImageInput):
    """pose_regression: image to pose, motion and classes by a trained VLocNet++."""

    node_name: ClassVar[str] = "pose_regression"
    pose_model: str
    camera_in_base: Annotated[list[float], Field(min_length=7, max_length=7)]
    max_gap: Positive
    time_jump_tolerance: NonNegative
    camera_tolerance: Fraction
    device: Literal["auto", "cpu", "cuda"]
    mixed_precision: bool
    threads: int = Field(ge=0, le=256)


class RelocalizationConfig(CandidateChoice, ImageInput):
    """gnn_relocalization: images to place matches and poses by a graph of scene embeddings."""

    node_name: ClassVar[str] = "gnn_relocalization"
    s3e_model: str
    query_length: int = Field(ge=1, le=100)
    same_place_translation: Positive
    same_place_rotation: Annotated[float, Field(gt=0.0, le=3.15)]
    rival_share: Fraction
    verification_timeout: Positive
    depth_topic_used: bool
    pose_prior_used: bool
    pose_prior_sigmas: Positive
    threads: int = Field(ge=0, le=256)
    map: str


class GpsImageSyncConfig(ImageInput):
    """gps_image_sync: image, fix and odometry to a dataset folder of labelled keyframes."""

    node_name: ClassVar[str] = "gps_image_sync"
    dataset: str
    keyframe_translation: Positive
    keyframe_rotation: Positive
    image_format: Literal["jpg", "png"]
    jpeg_quality: int = Field(ge=1, le=100)
    fix_max_gap: Positive
    fix_max_sigma: Positive
    fix_max_speed: Positive
    heading_min_distance: Positive
    odometry_max_gap: Positive
    max_wait: Positive


class FineTuningConfig(NodeConfig):
    """fine_tuning, and ``vpr train`` and ``vpr eval selfsup``: labelled drives to a descriptor."""

    node_name: ClassVar[str] = "fine_tuning"
    model: str
    params_file: str
    horizontal_fov: Annotated[float, Field(gt=5.0, lt=179.0)]
    seen_distance: Positive
    positive_similarity: Annotated[float, Field(gt=0.0, lt=1.0)]
    negative_similarity: Annotated[float, Field(gt=0.0, lt=1.0)]
    min_positives: int = Field(ge=1)
    negatives_per_positive: int = Field(ge=1, le=1000)
    negative_pool: int = Field(ge=2, le=100_000)
    head: Literal["linear", "fc6_fc7"]
    embedding_dimension: int = Field(ge=2, le=8192)
    whitening_shrinkage: NonNegative
    normalised: bool
    margin: Positive
    normalised_margin: Annotated[float, Field(gt=0.0, le=2.0)]
    epochs: int = Field(ge=1, le=100_000)
    epoch_positives: int = Field(ge=1)
    batch_positives: int = Field(ge=1)
    learning_rate: LearningRate
    trunk_learning_rate: LearningRate
    weight_decay: NonNegative
    unfreeze: int = Field(ge=0)
    patience: int = Field(ge=1)
    snapshots: int = Field(ge=0)
    seed: int = Field(ge=0)
    device: Literal["auto", "cpu", "cuda"]
    mixed_precision: bool
    threads: int = Field(ge=0, le=256)
    same_place_distance: Positive
    same_place_rotation: Annotated[float, Field(gt=0.0, le=3.15)]
    exclude_recent_keyframes: int = Field(ge=0)
    candidates: int = Field(ge=1, le=100)
    impostors: int = Field(ge=0, le=100_000)
    index: Literal["auto", "exact", "kd_tree", "graph"]
    wanted_precisions: Annotated[list[Annotated[float, Field(gt=0.0, lt=1.0)]], Field(min_length=1)]
    wanted_drives: Annotated[float, Field(gt=0.5, lt=1.0)]
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]

    @model_validator(mode="after")
    def _labels_apart(self) -> Self:
        if self.negative_similarity >= self.positive_similarity:
            raise ValueError("negative_similarity must be below positive_similarity")
        if self.negatives_per_positive > self.negative_pool:
            raise ValueError("negative_pool must hold at least negatives_per_positive")
        return self


class BagPlayerConfig(NodeConfig):
    """bag_player: a recording onto its topics."""

    node_name: ClassVar[str] = "bag_player"
    bag: str
    rate: Annotated[float, Field(gt=0.0, le=100.0)]
    loop: bool
    listeners: int = Field(ge=0)
    odometry_listeners: int = Field(ge=0)
    listener_timeout: NonNegative
    start_delay: NonNegative


class BagRecorderConfig(NodeConfig):
    """bag_recorder: topics to a recording."""

    node_name: ClassVar[str] = "bag_recorder"
    bag: str
    topics: list[str]


class BindingConfig(NodeConfig):
    """A bridge that ties closures to keyframes which the host chose itself."""

    keyframe_gap: Positive
    odometry_max_gap: Positive
    patience: Positive
    offset_translation_noise: NonNegative
    offset_rotation_noise: NonNegative


class VinsMonoBridgeConfig(BindingConfig, ImageInput):
    """vins_mono_bridge: closures to VINS-Mono's match points."""

    node_name: ClassVar[str] = "vins_mono_bridge"
    window: int = Field(ge=1, le=100)
    feature_count: int = Field(ge=50, le=5000)
    feature_contrast: int = Field(ge=1, le=100)
    match_ratio: Annotated[float, Field(gt=0.0, le=1.0)]
    match_max_distance: int = Field(ge=1, le=256)
    inlier_threshold: Annotated[float, Field(gt=0.0, le=50.0)]
    min_matches: int = Field(ge=6, le=5000)
    agreement_translation: Positive
    agreement_rotation: Positive


class VinsFusionBridgeConfig(NodeConfig):
    """vins_fusion_bridge: what VINS-Fusion's loop_fusion node publishes."""

    node_name: ClassVar[str] = "vins_fusion_bridge"
    world_frame: Annotated[str, Field(min_length=1)]
    publish_period: Positive


class RtabmapBridgeConfig(BindingConfig):
    """rtabmap_bridge: closures to RTAB-Map's AddLink, read back from its graph."""

    node_name: ClassVar[str] = "rtabmap_bridge"
    link_type: Literal["global", "user"]
    read_back_timeout: Positive


class SwarmSlamBridgeConfig(BindingConfig):
    """swarm_slam_bridge: closures to Swarm-SLAM's back end."""

    node_name: ClassVar[str] = "swarm_slam_bridge"


class PoseGraphToolsBridgeConfig(BindingConfig):
    """pose_graph_tools_bridge: closures to a Kimera-style back end."""

    node_name: ClassVar[str] = "pose_graph_tools_bridge"
    keys: Literal["own", "host"]
    robot_id: int = Field(ge=0, le=255)
    odometry_translation_sigma: Positive
    odometry_rotation_sigma: Positive


class OrbSlam3BridgeConfig(NodeConfig):
    """orb_slam3_bridge: ORB-SLAM3's poses to odometry, and back corrected."""

    node_name: ClassVar[str] = "orb_slam3_bridge"
    source: Literal["camera_pose", "body_odom"]
    camera_in_base: Annotated[list[float], Field(min_length=7, max_length=7)]
    scale: Positive
    max_speed: Positive
    max_turn_rate: Positive
    odometry_max_gap: Positive
    odom_frame: Annotated[str, Field(min_length=1)]
    base_frame: Annotated[str, Field(min_length=1)]


NODE_CONFIGS: tuple[type[NodeConfig], ...] = (
    SegmentationConfig,
    EmbeddingConfig,
    SequenceMatchingConfig,
    LoopClosureConfig,
    PoseGraphConfig,
    GpsImageSyncConfig,
    PoseRegressionConfig,
    RelocalizationConfig,
    FineTuningConfig,
    BagPlayerConfig,
    BagRecorderConfig,
    VinsMonoBridgeConfig,
    VinsFusionBridgeConfig,
    RtabmapBridgeConfig,
    SwarmSlamBridgeConfig,
    PoseGraphToolsBridgeConfig,
    OrbSlam3BridgeConfig,
)
COMMAND_CONFIGS: tuple[type[NodeConfig], ...] = (SequenceTrainingConfig,)  # of no node
