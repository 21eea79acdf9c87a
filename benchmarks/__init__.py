"""Benchmarks: README.md says what each folder holds, and how to add one.

Committed results and other people's notes name commands by modules that have moved. `python -m benchmarks.OLD` runs
the new one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

MOVED = {
    "report": "atari100k/report.py",
    "keypoints_report": "keypoints/report.py",
    "keypoints_stability": "keypoints/stability.py",
    "memory_report": "memory/report.py",
    "stale_states": "memory/stale_states.py",
    "throughput": "speed/throughput.py",
    "agents_speed": "speed/agents.py",
    "detector_speed": "speed/detectors.py",
    "rainbow_speed": "speed/rainbow.py",
    "pretraining_step": "speed/pretraining_step.py",
    "encoders": "variants/encoders.py",
    "feature_variants": "variants/features.py",
    "peak_variants": "variants/peaks.py",
    "pointnet_variants": "variants/pointnet.py",
    "softmax_variants": "variants/softmax.py",
    "variants_report": "variants/report.py",
    "paper_figures": "figures/paper.py",
    "shipped_picture": "figures/shipped.py",
    "ship_checkpoints": "release/run.py",
}
"""Old name of a module to its file. Nothing new belongs here."""


class OldNames:
    """Finds the modules of `MOVED`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The new file of an old name, for the import system."""
        package, _, old = name.rpartition(".")
        if package != __name__ or old not in MOVED:
            return None
        return spec_from_file_location(name, Path(__file__).parent / MOVED[old])


sys.meta_path.append(OldNames)
