"""The whole suite, and a bag to play through it if one is given.

ros2 launch vpr_bringup relocalize.launch.py bag:=bags/demo rviz:=true
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import (
    LaunchConfiguration,
    NotEqualsSubstitution,
    PathJoinSubstitution,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from vpr_bringup.processes import BRIDGES, SUITE, transport_environment

CONFIG = PathJoinSubstitution([FindPackageShare("vpr_bringup"), "config"])
# Each robot keeps its own transform tree inside its namespace, as nav2 has it.
TF = [("/tf", "tf"), ("/tf_static", "tf_static")]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *ARGUMENTS,
            *(SetEnvironmentVariable(*setting) for setting in transport_environment().items()),
            OpaqueFunction(function=suite),
            Node(
                package="vpr_nodes",
                executable="bag_player",
                name="bag_player",
                namespace=LaunchConfiguration("namespace"),
                parameters=[
                    LaunchConfiguration("params_file"),
                    {
                        "bag": ParameterValue(LaunchConfiguration("bag"), value_type=str),
                        "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                    },
                ],
                remappings=TF,
                ros_arguments=["--log-level", LaunchConfiguration("log_level")],
                output="screen",
                condition=IfCondition(NotEqualsSubstitution(LaunchConfiguration("bag"), "")),
            ),
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=LaunchConfiguration("namespace"),
                arguments=["-d", PathJoinSubstitution([CONFIG, "vpr.rviz"])],
                parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
                remappings=TF,
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )


ARGUMENTS = (
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of every node"),
    DeclareLaunchArgument(
        "params_file",
        default_value=PathJoinSubstitution([CONFIG, "vpr.yaml"]),
        description="Parameters, keyed by node; may hold only the values it changes",
    ),
    DeclareLaunchArgument(
        "composed",
        default_value="false",
        description="All nodes in one process, sharing one CUDA context, instead of one each",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="true",
        description="Configure and activate the lifecycle nodes at once",
    ),
    DeclareLaunchArgument("log_level", default_value="info", description="Of every node"),
    DeclareLaunchArgument(
        "map", default_value="", description="Map folder to relocalize in; empty as in params_file"
    ),
    DeclareLaunchArgument(
        "image_transport",
        default_value="",
        choices=["", "auto", "raw", "compressed"],
        description="Which of camera/image_raw[/compressed] is read; empty as in params_file",
    ),
    DeclareLaunchArgument("bag", default_value="", description="Bag to play; empty plays none"),
    DeclareLaunchArgument("rate", default_value="1.0", description="Playing speed of the bag"),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value=NotEqualsSubstitution(LaunchConfiguration("bag"), ""),
        description="Follow /clock; true where a bag is played",
    ),
    DeclareLaunchArgument(
        "bridge",
        default_value="",
        choices=["", *BRIDGES],
        description="Also give the closures to this SLAM system; empty starts no bridge",
    ),
    DeclareLaunchArgument(
        "pose_model",
        default_value="",
        description="Also start pose_regression with this VLocNet++; its guesses order what "
        "loop_closure verifies (composed: set loop_closure.pose_prior_used); empty starts it not",
    ),
    DeclareLaunchArgument(
        "gnn",
        default_value="false",
        description="Also start gnn_relocalization: more candidates, and the service relocalize",
    ),
    DeclareLaunchArgument(
        "remap",
        default_value="",
        description='Of every node, e.g. "odometry:=/odom camera/image_raw:=/cam0/image_raw"',
    ),
    DeclareLaunchArgument("rviz", default_value="false", description="Open RViz on the results"),
)


def suite(context: LaunchContext) -> list[Node]:
    """The six nodes, a process each or the one that holds them all, and the bridge asked for."""
    argument = context.launch_configurations
    overrides = {
        "use_sim_time": LaunchConfiguration("use_sim_time"),
        "autostart": LaunchConfiguration("autostart"),
    }
    for name in ("map", "image_transport"):
        if argument[name]:
            overrides[name] = ParameterValue(argument[name], value_type=str)
    composed = IfCondition(LaunchConfiguration("composed")).evaluate(context)
    # Named, what is given here wins over any section of params_file; one name for all nodes of a
    # process would rename them.
    programs = (
        [("vpr_nodes", "composed", None)]
        if composed
        else [("vpr_nodes", name, name) for name in SUITE]
    )
    own: dict[str | None, dict[str, object]] = {}
    remaps = [tuple(word.split(":=", 1)) for word in argument["remap"].split()]
    if bridge := argument["bridge"]:
        programs.append(("vpr_bridges", bridge, f"{bridge}_bridge"))
    if pose_model := argument["pose_model"]:
        programs.append(("vpr_nodes", "pose_regression", "pose_regression"))
        own["pose_regression"] = {"pose_model": ParameterValue(pose_model, value_type=str)}
        own["loop_closure"] = {"pose_prior_used": True}
    if IfCondition(LaunchConfiguration("gnn")).evaluate(context):
        programs.append(("vpr_nodes", "gnn_relocalization", "gnn_relocalization"))
        own["gnn_relocalization"] = {"pose_prior_used": bool(pose_model)}
    return [
        Node(
            package=package,
            executable=executable,
            name=name,
            namespace=LaunchConfiguration("namespace"),
            parameters=[
                LaunchConfiguration("params_file"),
                overrides,
                *([own[name]] if name in own else []),
            ],
            remappings=[*TF, *remaps],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            output="screen",
        )
        for package, executable, name in programs
    ]
