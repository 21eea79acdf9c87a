"""What a trained model says once of every frame, stored for a stage that learns from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from sb3_permakey.keypoints import KeypointDetector, KeypointModel
from sb3_permakey.pretraining.distributed import Workers

StoreSplit = Callable[[str, KeypointDetector], None]
"""Writes the files of a split by a detector of the model."""


def stored_targets(
    paths: Mapping[str, Sequence[Path]],
    store: StoreSplit,
    model: KeypointModel,
    device: torch.device,
    workers: Workers,
) -> dict[str, list[np.ndarray]]:
    """The arrays of each split, memory-mapped; the first process stores those of a split that lacks one.

    Frames of an episode are much alike, so that a streaming detector leaves most of the work out.

    :param paths: the files of each split, one for each array
    :param store: writes those of a split
    :param model: the trained model
    :param device: where it computes
    :param workers: all processes, of which the others wait
    """
    missing = [split for split, of_split in paths.items() if not all(path.exists() for path in of_split)]
    if workers.is_first and missing:
        detector = KeypointDetector(model, device=device, precision="float32", streaming=True)
        for split in missing:
            store(split, detector)
    workers.wait()
    return {split: [np.load(path, mmap_mode="r") for path in of_split] for split, of_split in paths.items()}
