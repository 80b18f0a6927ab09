from setuptools import find_packages, setup

setup(
    name="vpr",
    version="0.1.0",
    packages=find_packages(include=["vpr", "vpr.*"]),
    package_data={
        "vpr": [
            "default_config/*.yaml",
            "default_config/*.xml",
            "evaluation/*.html",
            "relocalization/*.safetensors",
            "semantics/*.safetensors",
        ]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vpr"]),
        ("share/vpr", ["package.xml"]),
    ],
    zip_safe=False,
    maintainer="The vpr authors",
    maintainer_email="maintainers@vpr.invalid",
    description="Visual place recognition: verified, explained, calibrated loop closures",
    license="Apache-2.0",
    entry_points={"console_scripts": ["vpr = vpr.cli:app"]},
)
