"""How long memory cells take for a batch of windows, forwards and backwards, side by side in one run.

    python -m benchmarks.speed memory --update --guide docs/recurrent_agents.md

One thread, whose own time is measured, so that what else the machine does counts little. The cells take turns; of the
ratios to the LSTM in the same turn the median counts.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness.markdown_blocks import renewed
from sb3_permakey.common.memory import MEMORY_CELLS, MemoryCell
from sb3_permakey.files import write_atomically, write_json
from sb3_permakey.keypoints.device import freed_memory_kept
from sb3_permakey.provenance import provenance

CELLS = ("lstm", "gru", "mingru")
WINDOWS, UNITS = 32, 128
"""B, and width of inputs and layers."""


@dataclass(frozen=True)
class MemorySpeed:
    """Measure memory cells."""

    steps: tuple[int, ...] = (8, 80, 400)
    """Lengths of windows."""
    turns: int = 15
    """Turns of each cell; the median counts."""
    out: Path = Path("benchmarks/results/memory_speed.json")
    """JSON file to write."""
    guide: Path | None = None
    """File in which to renew the table between its marks, <!-- memory-speed --> and <!-- /memory-speed -->."""


def ms_of_windows(cell: MemoryCell, inputs: torch.Tensor) -> float:
    """Milliseconds of a batch of windows (T, B, inputs), with the gradients of weights and inputs."""
    started = time.process_time()
    outputs, _ = cell.window(inputs)
    outputs.sum().backward()
    return (time.process_time() - started) * 1000


def measure(steps: int, turns: int) -> dict[str, dict[str, Any]]:
    """Of each cell its median time and the median of its ratios to the first one's."""
    torch.manual_seed(0)
    cells = {name: MEMORY_CELLS[name](UNITS, UNITS, 1) for name in CELLS}
    inputs = torch.randn(steps, WINDOWS, UNITS, requires_grad=True)
    took: dict[str, list[float]] = {name: [] for name in cells}
    # The first turn warms up.
    for turn in range(turns + 1):
        for name, cell in cells.items():
            ms = ms_of_windows(cell, inputs)
            if turn:
                took[name].append(ms)
    return {
        name: {
            "ms": statistics.median(times),
            "ratio": statistics.median(ms / first for ms, first in zip(times, took[CELLS[0]], strict=True)),
            "ms_of_each_turn": times,
        }
        for name, times in took.items()
    }


def table(windows: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """The figures as a table of Markdown: a row a length, milliseconds and in brackets the ratio."""
    lines = [f"| steps in a window | {' | '.join(CELLS)} |", "|---|" + "---|" * len(CELLS)]
    for steps, cells in windows.items():
        shown = " | ".join(f"{cells[name]['ms']:.1f} ({cells[name]['ratio']:.2f})" for name in CELLS)
        lines.append(f"| {steps} | {shown} |")
    return lines


@freed_memory_kept()
def main(config: MemorySpeed) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    windows = {str(steps): measure(steps, config.turns) for steps in config.steps}
    about = {"threads": 1, "device": "cpu", "batch": WINDOWS, "units": UNITS}
    write_json(config.out, {**about, "windows": windows, **provenance()})
    lines = table(windows)
    print("\n".join([*lines, str(config.out)]))
    if config.guide is not None:
        write_atomically(config.guide, renewed(config.guide, **{"memory-speed": "\n".join(lines)}).encode())
