#!/usr/bin/env bash
# Make a virtual environment holding the ROS wheels usable as a colcon underlay.
# The wheels' CMake exports name the interpreter they were built with: point them at this one.
set -euo pipefail
prefix=$(cd "$1" && pwd)
read -r python_include numpy_include < <("$prefix/bin/python" -c \
  'import numpy, sysconfig; print(sysconfig.get_path("include"), numpy.get_include())')
{ grep -rlE '/opt/python/cp3' "$prefix/share" --include='*.cmake' || true; } | xargs -r sed -i -E \
  -e "s#/opt/python/cp3[0-9]+-cp3[0-9]+/include/python3\.[0-9]+#$python_include#g" \
  -e "s#/opt/python/cp3[0-9]+-cp3[0-9]+/lib/python3\.[0-9]+/site-packages/numpy/_?core/include#$numpy_include#g"
touch "$prefix"/local_setup.{sh,bash,zsh}
