from setuptools import find_packages, setup

NODES = (
    "segmentation",
    "embedding",
    "sequence_matching",
    "loop_closure",
    "pose_graph",
    "gps_image_sync",
    "pose_regression",
    "gnn_relocalization",
    "fine_tuning",
    "bag_player",
    "bag_recorder",
    "composed",
)

setup(
    name="vpr_nodes",
    version="0.1.0",
    packages=find_packages(include=["vpr_nodes"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vpr_nodes"]),
        ("share/vpr_nodes", ["package.xml"]),
    ],
    zip_safe=False,
    maintainer="The vpr authors",
    maintainer_email="maintainers@vpr.invalid",
    description="The vpr nodes, one a file",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"{node} = vpr_nodes.{node}:main" for node in NODES]},
)
