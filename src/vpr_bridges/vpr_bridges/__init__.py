"""Bridges from vpr to other SLAM systems, one host a file."""
