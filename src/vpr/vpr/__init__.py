"""vpr: visual place recognition a robot can trust. A pure library; ROS lives in vpr_nodes."""

__version__ = "0.1.0"
