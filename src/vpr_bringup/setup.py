from pathlib import Path

from setuptools import find_packages, setup


def files(folder: str, pattern: str) -> list[str]:
    """Of the workspace's own folder, linked here so that any build location finds it."""
    return sorted(str(path) for path in Path(folder).glob(pattern))


setup(
    name="vpr_bringup",
    version="0.1.0",
    packages=find_packages(include=["vpr_bringup"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vpr_bringup"]),
        ("share/vpr_bringup", ["package.xml"]),
        ("share/vpr_bringup/launch", files("launch", "*.launch.py")),
        ("share/vpr_bringup/config", files("config", "*.*")),
    ],
    zip_safe=False,
    maintainer="The vpr authors",
    maintainer_email="maintainers@vpr.invalid",
    description="Starts vpr: launch files, parameters, views, the one-process runner",
    license="Apache-2.0",
    extras_require={"test": ["pytest"]},  # how `colcon test` knows to run pytest
    entry_points={"console_scripts": []},
)
