"""Ends of episodes in vectorised environments, of whatever maker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LAST = "terminal_observation"
"""Key under which SB3's vectorised environments tell an episode's last observation."""


def ended_and_told(dones: np.ndarray, infos: Sequence[dict[str, Any]]) -> list[int]:
    """Which environments ended an episode with a step and tell its last observation.

    SB3's own environments always tell it, others' (GPU simulators, EnvPool) not, or as None; such an entry is removed,
    since SB3's wrappers ask only whether there is one. Running environments' entries are left alone.

    :param dones: (N,), which episodes ended
    :param infos: of the step
    """
    told = []
    for index in np.flatnonzero(dones).tolist():
        if infos[index].get(LAST) is None:
            infos[index].pop(LAST, None)
        else:
            told.append(index)
    return told
