"""The ROS 2 nodes, one a file: parameters, topics and one call into the library."""

import os

# Several nodes share the cores: BLAS threads that spin while they wait hold up the others.
# Set before numpy is first imported; a user's own setting stands.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
