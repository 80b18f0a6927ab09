"""The ROS 2 nodes, one a file: parameters, topics and one call into the library."""
