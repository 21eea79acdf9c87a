"""What the CNN encoder costs, beside its computation written out: milliseconds of a step's parts, and steps per second.

    python -m benchmarks.speed cnn --update

The paper's agent on MsPacman, with as many filters as the authors' released code has. All variants see the same
observations of random play and take turns, an update and some steps of acting each, in milliseconds of the process's
own time, so that what else the machine does counts little; of all turns the median counts, and of the ratios too.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness.markdown_blocks import filled
from benchmarks.harness.tables import table
from sb3_permakey import KeypointCNN, PermaKeyObservation, RecurrentDQN, make_atari_env
from sb3_permakey.common.sequence_buffer import SequenceReplayBuffer
from sb3_permakey.files import write_atomically, write_json
from sb3_permakey.keypoints.device import freed_memory_kept
from sb3_permakey.keypoints.layers import gaussian_windows
from sb3_permakey.provenance import provenance

GAME, CHECKPOINT = "MsPacman", "mspacman-teacher"
ACTING_STEPS = 8
"""Steps of acting in a turn."""
STEPS_PER_UPDATE = 4
NOTES = Path(__file__).with_name("notes_cnn.md")


class WrittenOut(KeypointCNN):
    """The same numbers as the paper has them: trunk, windows and convolutions, of all cells, for each network."""

    prepare_observations: Any = None

    def forward(self, observations: dict[str, Any]) -> Tensor:
        """Features (B, features_dim) of observations."""
        images = observations["image"]
        if self.channels_last:
            images = images.permute(0, 3, 1, 2)
        windows = gaussian_windows(observations["keypoints"], self.map_size, self.window_std)
        return self.output(self.convolutions(self.trunk(images) * windows.sum(dim=1, keepdim=True))[-1])


WRITTEN_OUT = "written out"
VARIANTS: dict[str, tuple[type[KeypointCNN], dict[str, Any]]] = {
    WRITTEN_OUT: (WrittenOut, {}),
    "KeypointCNN": (KeypointCNN, {}),
    "KeypointCNN, bfloat16": (KeypointCNN, {"precision": "bfloat16"}),
}


@dataclass(frozen=True)
class CnnSpeed:
    """Measure the parts of a step of the agent with the CNN encoder."""

    filters: int = 32
    """Filters of each convolution."""
    steps: int = 3000
    """Steps of random play that updates learn from."""
    turns: int = 10
    """Turns of each variant."""
    threads: int = 1
    """CPU threads."""
    out: Path = Path("benchmarks/results/cnn_speed.json")
    """JSON file to write, with a Markdown file of the same name beside it."""


def played(steps: int) -> tuple[SequenceReplayBuffer, list[float]]:
    """Steps of random play, and milliseconds of emulator and detector of each."""
    env, took = make_env(), []
    step = env.step

    def timed_step(action: Any) -> Any:
        started = time.process_time()
        result = step(action)
        took.append((time.process_time() - started) * 1000)
        return result

    env.step = timed_step  # type: ignore[method-assign]
    player = make_agent(env, KeypointCNN, buffer_size=steps + 1000, learning_starts=steps - 1, filters=1)
    player.learn(steps, log_interval=None)  # type: ignore[arg-type]
    assert isinstance(player.replay_buffer, SequenceReplayBuffer)
    return player.replay_buffer, took


def make_env() -> PermaKeyObservation:
    """Keypoints with the frames beside them."""
    return PermaKeyObservation(make_atari_env(GAME, seed=0), CHECKPOINT, keep_image=True, device="cpu")


def make_agent(
    env: PermaKeyObservation, encoder: type[KeypointCNN], buffer_size: int, learning_starts: int = 0, **settings: Any
) -> RecurrentDQN:
    """The paper's agent."""
    return RecurrentDQN(
        "PermaKeyPolicy",
        env,
        learning_starts=learning_starts,
        buffer_size=buffer_size,
        policy_kwargs={"features_extractor_class": encoder, "features_extractor_kwargs": settings},
        device="cpu",
        seed=0,
    )


def parts_of(agent: RecurrentDQN) -> dict[str, Callable[[], Any]]:
    """A step's parts, emulator and detector aside."""

    def act() -> None:
        for _ in range(ACTING_STEPS):
            agent._sample_action(0)

    return {"update": lambda: agent.train(1, agent.batch_size), "acting": act}


def measure(config: CnnSpeed) -> dict[str, Any]:
    """Milliseconds of all turns, by variant and part, and of the play that all have in common."""
    buffer, play = played(config.steps)
    agents = {}
    for name, (encoder, settings) in VARIANTS.items():
        agents[name] = make_agent(make_env(), encoder, buffer.buffer_size, filters=config.filters, **settings)
        agents[name].replay_buffer = buffer
        # The first steps and the first update, in which libraries choose what they need.
        agents[name].learn(STEPS_PER_UPDATE, log_interval=None)  # type: ignore[arg-type]
    took: dict[str, dict[str, list[float]]] = {name: {"update": [], "acting": []} for name in agents}
    for _ in range(config.turns):
        for name, agent in agents.items():
            for part, do in parts_of(agent).items():
                started = time.process_time()
                do()
                passed = (time.process_time() - started) * 1000
                took[name][part].append(passed / ACTING_STEPS if part == "acting" else passed)
    return {"play": play, "variants": took}


def summary(measured: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Of each variant the medians in milliseconds, those of a step, steps per second, and how many times as many."""
    play = statistics.median(measured["play"])
    found = {}
    first = measured["variants"][WRITTEN_OUT]
    for name, took in measured["variants"].items():
        medians = {part: statistics.median(values) for part, values in took.items()}
        steps = [_of_step(play, took, turn) for turn in range(len(took["update"]))]
        of_first = [_of_step(play, first, turn) for turn in range(len(steps))]
        found[name] = {
            **medians,
            "step": statistics.median(steps),
            "steps_per_s": 1000 / statistics.median(steps),
            "update_ratio": statistics.median(
                before / after for before, after in zip(first["update"], took["update"], strict=True)
            ),
            "step_ratio": statistics.median(before / after for before, after in zip(of_first, steps, strict=True)),
        }
    return found


def _of_step(play: float, took: dict[str, list[float]], turn: int) -> float:
    return play + took["acting"][turn] + took["update"][turn] / STEPS_PER_UPDATE


def report(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rows = [
        [
            name,
            f"{row['update']:.0f}",
            f"{row['acting']:.1f}",
            f"{row['step']:.0f}",
            f"{row['steps_per_s']:.1f}",
            f"{row['update_ratio']:.2f}",
            f"{row['step_ratio']:.2f}",
        ]
        for name, row in summary(result["ms"]).items()
    ]
    columns = ["", "update, ms", "acting, ms", "step, ms", "steps/s", "updates, times", "steps, times"]
    return filled(
        NOTES,
        machine=f"{result['threads']} thread(s) of {result['machine']['cpu']}",
        commit=result["commit"],
        play=f"{statistics.median(result['ms']['play']):.1f}",
        filters=str(result["filters"]),
        table=table(columns, rows),
    )


@freed_memory_kept()
def main(config: CnnSpeed) -> None:
    """Measure, print and write."""
    torch.set_num_threads(config.threads)
    result = {"game": GAME, "filters": config.filters, "threads": config.threads, "device": "cpu"}
    write_json(config.out, {**result, "ms": measure(config), **provenance()})
    text = report(json.loads(config.out.read_text()))
    write_atomically(config.out.with_suffix(".md"), text.encode())
    print(text)
