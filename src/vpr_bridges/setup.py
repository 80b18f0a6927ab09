from setuptools import find_packages, setup

BRIDGES = (
    "vins_mono",
    "vins_fusion",
    "rtabmap",
    "swarm_slam",
    "pose_graph_tools",
    "orb_slam3",
)

setup(
    name="vpr_bridges",
    version="0.1.0",
    packages=find_packages(include=["vpr_bridges"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vpr_bridges"]),
        ("share/vpr_bridges", ["package.xml"]),
    ],
    zip_safe=False,
    maintainer="The vpr authors",
    maintainer_email="maintainers@vpr.invalid",
    description="Bridges from vpr to other SLAM systems, one host a file",
    license="Apache-2.0",
    extras_require={"test": ["pytest"]},  # how `colcon test` knows to run pytest
    entry_points={"console_scripts": [f"{host} = vpr_bridges.{host}:main" for host in BRIDGES]},
)
