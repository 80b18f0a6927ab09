"""Where the robot has just been: no place to close a loop with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vpr.config import CandidateChoice
from vpr.records import Keyframe


def older_places(
    query: Keyframe,
    sessions: NDArray[np.int64],
    stamps_ns: NDArray[np.int64],
    config: CandidateChoice,
) -> int:
    """How many places, from the first, are not merely where the robot has just been.

    Args:
        sessions, stamps_ns: (N,) of all places in the order they were seen; sessions ascend, and
            the query's is the newest.
    """
    own = int(sessions.searchsorted(query.session))
    newest_ns = query.stamp_ns - int(config.exclude_recent_time * 1e9)
    old_enough = int(stamps_ns[own:].searchsorted(newest_ns, "right"))
    far_enough = len(sessions) - own - config.exclude_recent_keyframes
    return own + max(0, min(old_enough, far_enough))
