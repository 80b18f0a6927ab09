#!/usr/bin/env python3
"""Render the demo drive of a seed into a rosbag2 folder: make_demo_bag.py [--seed N] [OUT]."""

import argparse
from pathlib import Path

from vpr.simulation.recording import record_drive

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).parent / "demo")
parser.add_argument("--seed", type=int, default=0, help="another seed, another world")
arguments = parser.parse_args()
recorded = record_drive(arguments.out, arguments.seed, overwrite=True)
print(
    f"{recorded.path}: {recorded.images} images, {recorded.seconds:.0f} s, {recorded.metres:.0f} m"
)
