"""No process outlives the one that started it, not even where that was killed outright."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def end_with(parent: int) -> None:
    """Have the kernel interrupt this process when its parent ends; to be called in the child.

    On Linux alone; elsewhere a killed parent leaves its children behind.

    Args:
        parent: its process id. If it is gone already, this process ends here.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT))
    if os.getppid() != parent:
        raise SystemExit("who started this has ended")
