"""True objects of a frame, written down."""

import numpy as np

from sb3_permakey.scores import FrameObjects


def objects(*boxes: tuple[float, float, float, float], displays: tuple[int, ...] = (), names: str = "") -> FrameObjects:
    names = names or "abcdefgh"[: len(boxes)]
    flags = np.isin(np.arange(len(boxes)), displays)
    return FrameObjects(np.array(boxes, dtype=float).reshape(-1, 4), tuple(names), tuple(names), flags)
