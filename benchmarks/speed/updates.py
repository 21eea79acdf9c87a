"""What an update and a step of acting cost: operations, what moves between host and device, milliseconds.

    python -m benchmarks.speed updates --label after

Observations are random keypoints, so that neither an emulator nor a detector is needed. Operations are counted on the
CPU; what moves, on torch's device "meta", which stands for a GPU here. Milliseconds are of one thread's own time, so
that what else the machine does counts little; of many the minimum counts. The table has one column of figures for each
label, a file each, so that a commit is compared with an earlier one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces

from benchmarks.harness.markdown_blocks import filled
from benchmarks.harness.tables import table
from benchmarks.speed.operations import Operations
from sb3_permakey import Rainbow, RecurrentDQN
from sb3_permakey.common.presets import RAINBOW_PEAKS, STRONG
from sb3_permakey.common.recurrent_q_learning import RecurrentQLearning
from sb3_permakey.files import write_atomically, write_json
from sb3_permakey.keypoints.device import freed_memory_kept
from sb3_permakey.provenance import provenance

CHANNELS, ACTIONS, EPISODE = 32, 18, 60
WARM_UP_STEPS = 300
NOTES = Path(__file__).with_name("notes_updates.md")


class RandomKeypoints(gym.Env):
    """Observations like those of PermaKeyObservation on peaks, drawn at random."""

    action_space = spaces.Discrete(ACTIONS)

    def __init__(self, count: int, motion: bool) -> None:
        parts = {"keypoints": (count, 2), "features": (count, CHANNELS), "confidence": (count,)}
        shapes = {**parts, "motion": (count, 6)} if motion else parts
        self.observation_space = spaces.Dict({name: spaces.Box(-1, 1, shape) for name, shape in shapes.items()})
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Another random observation."""
        self.steps += 1
        return self.observation_space.sample(), float(action == 0), self.steps == EPISODE, False, {}


def rainbow(count: int, device: str) -> RecurrentQLearning:
    """Rainbow on so many keypoints."""
    settings = {**RAINBOW_PEAKS, "learning_starts": WARM_UP_STEPS}
    return Rainbow("PermaKeyPolicy", RandomKeypoints(count, motion=True), device=device, seed=0, **settings)


def recurrent(count: int, device: str, **settings: Any) -> RecurrentQLearning:
    """RecurrentDQN on so many keypoints."""
    settings = {**settings, "learning_starts": WARM_UP_STEPS}
    return RecurrentDQN("PermaKeyPolicy", RandomKeypoints(count, motion=False), device=device, seed=0, **settings)


AGENTS: dict[str, Callable[[str], RecurrentQLearning]] = {
    "Rainbow, K = 8": partial(rainbow, 8),
    "Rainbow, K = 20": partial(rainbow, 20),
    "RecurrentDQN, K = 7": partial(recurrent, 7),
    "RecurrentDQN, strong, K = 7": partial(recurrent, 7, **STRONG),
}
MOVED = ("to device", "to host", "numbers read", "shapes read")


@dataclass(frozen=True)
class UpdatesBenchmark:
    """Count and time updates and acting."""

    label: str = "after"
    """Name of this run's figures in the table."""
    repeats: int = 300
    """How often an update is timed."""
    out: Path = Path("benchmarks/results/updates")
    """Folder of the JSON files, with a Markdown file of the same name beside it."""


def parts_of(agent: RecurrentQLearning) -> dict[str, Callable[[], Any]]:
    """An update, and a step of acting without the environment."""
    return {"update": lambda: agent.train(1, agent.batch_size), "acting": lambda: agent._sample_action(0)}


def counted(make: Callable[[str], RecurrentQLearning], device: str) -> dict[str, dict[str, int]]:
    """Counts of an update and of acting, of an agent that has made an update before."""
    with Operations():
        agent = make(device)
        agent.learn(WARM_UP_STEPS + 8, log_interval=None)  # type: ignore[arg-type]
    found = {}
    for name, part in parts_of(agent).items():
        with Operations() as operations:
            part()
        found[name] = dict(operations.counts)
    return found


def timed(make: Callable[[str], RecurrentQLearning], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each update and of acting."""
    agent = make("cpu")
    agent.learn(WARM_UP_STEPS + 8, log_interval=None)  # type: ignore[arg-type]
    found = {}
    for name, part in parts_of(agent).items():
        took = []
        for _ in range(repeats):
            started = time.process_time()
            part()
            took.append((time.process_time() - started) * 1000)
        found[name] = took
    return found


def measure(repeats: int) -> dict[str, Any]:
    """Counts and times of all agents."""
    found = {}
    for agent, make in AGENTS.items():
        operations, moved, ms = counted(make, "cpu"), counted(make, "meta"), timed(make, repeats)
        found[agent] = {
            part: {
                "operations": operations[part].get("operations", 0),
                "views": operations[part].get("views", 0),
                **{name: moved[part].get(name, 0) for name in MOVED},
                "ms": min(ms[part]),
                "ms_of_each": [round(value, 3) for value in ms[part]],
            }
            for part in ms
        }
    return found


def comparison(results: dict[str, dict[str, Any]]) -> list[str]:
    """A table with a row for each agent and part, and in each cell the labels' figures, the first label's first.

    :param results: what was measured, by label
    """
    columns = ["operations", "views", *MOVED, "ms"]
    rows = []
    for agent in AGENTS:
        for part in ("update", "acting"):
            of_labels = [result["agents"][agent][part] for result in results.values()]
            cells = [
                ", ".join(f"{found[name]:.2f}" if name == "ms" else str(found[name]) for found in of_labels)
                for name in columns
            ]
            rows.append([f"{agent}, {part}", *cells])
    return table(["", *columns], rows)


def report(folder: Path) -> str:
    """All labels' figures, the oldest first, as Markdown."""
    results = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    results = dict(sorted(results.items(), key=lambda item: item[1]["order"]))
    labels = ", then ".join(f"{label} (commit {result['commit']})" for label, result in results.items())
    machine = next(iter(results.values()))["machine"]
    return filled(NOTES, machine=f"one thread of {machine['cpu']}", labels=labels, table=comparison(results))


@freed_memory_kept()
def main(config: UpdatesBenchmark) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    orders = {path.stem: json.loads(path.read_text())["order"] for path in config.out.glob("*.json")}
    order = orders.get(config.label, 1 + max(orders.values(), default=0))
    result = {"threads": 1, "device": "cpu", "order": order, "agents": measure(config.repeats)}
    write_json(config.out / f"{config.label}.json", {**result, **provenance()})
    text = report(config.out)
    write_atomically(config.out.with_suffix(".md"), text.encode())
    print(text)
