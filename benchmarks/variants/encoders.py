"""Which keypoint encoder learns soonest what a game's returns depend on? Without an agent, in minutes.

    python -m benchmarks.variants encoders --games MsPacman Seaquest

A player repeats random actions. From the keypoints of one frame an encoder predicts what comes next: the discounted
rewards, and how near the next lost life is. Learning is the agent's (Adam, mean squared error), on the first three
quarters of the play; the share of variance that is explained is measured on the rest, after some numbers of updates.
Beside that stands what an update of Rainbow with the encoder takes (`encoder_speed`).
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from benchmarks.harness.command import run_command
from benchmarks.harness.markdown_blocks import filled
from benchmarks.harness.results import made_before, settings_of
from benchmarks.harness.tables import table
from benchmarks.keypoints.run import shipped_name
from benchmarks.variants import encoder_speed
from benchmarks.variants.encoder_agents import AGENTS, agents_table
from benchmarks.variants.encoder_speed import SPEED, VARIANTS, EncoderVariant
from sb3_permakey import PermaKeyObservation, make_atari_env
from sb3_permakey.encoders.parts import require_keypoints
from sb3_permakey.files import write_atomically, write_json
from sb3_permakey.keypoints import ReadoutConfig, checkpoint_exists
from sb3_permakey.provenance import provenance

NOTES = Path(__file__).with_name("encoders.md")
TARGETS = ("rewards", "lost life")
KEEP_ACTION = 0.65
"""Probability that the player repeats its action."""
BATCH_SIZE, LEARNING_RATE = 128, 2e-4
CHUNK = 1000
"""Frames that are predicted at once where nothing is learned."""


@dataclass(frozen=True)
class EncoderBenchmark:
    """Train and judge keypoint encoders."""

    games: tuple[str, ...] = ("MsPacman", "Seaquest")
    """Games; each needs a checkpoint that comes with the package."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Names of the encoders."""
    num_keypoints: int | None = None
    """Number of peaks; None for the checkpoint's."""
    seeds: int = 2
    """Seeds of each encoder."""
    steps: int = 24_000
    """Steps of play."""
    updates: tuple[int, ...] = (250, 500, 1000)
    """Numbers of updates after which is judged."""
    gamma: float = 0.9
    """Discount of rewards and of the next lost life."""
    results: Path = Path("benchmarks/results/encoders")
    """Where the JSON files are, one a game; encoders that they hold are not trained again."""
    speed: Path = Path("benchmarks/results") / SPEED
    """JSON file of milliseconds."""
    agents: Path = Path("benchmarks/results") / AGENTS
    """Folder of the JSON files of agents, which this command only shows."""
    turns: int = 12
    """Turns in which updates are timed."""
    table: Path = Path("benchmarks/results/encoders.md")
    """Markdown file to write."""

    def __post_init__(self) -> None:
        for name in self.variants:
            if name not in VARIANTS:
                raise ValueError(f"unknown variant {name!r}: one of {', '.join(VARIANTS)}")
        for game in self.games:
            if not checkpoint_exists(shipped_name(game, "permakey", "clean")):
                raise ValueError(f"there is no checkpoint of {game} in the package")
        if not self.updates or sorted(self.updates) != list(self.updates) or self.updates[0] < 1:
            raise ValueError(f"updates must be rising numbers from 1 on, not {self.updates}")


class Play(NamedTuple):
    """Steps of play: observations and targets of learning and of judging."""

    observation_space: spaces.Dict
    learned: dict[str, Tensor]
    learned_targets: Tensor
    judged: dict[str, Tensor]
    judged_targets: Tensor


def discounted(values: np.ndarray, ends: np.ndarray, gamma: float) -> np.ndarray:
    """Discounted sums of the values from each step to its episode's end.

    :param values: (T,)
    :param ends: (T,) whether the episode ended with this step
    """
    sums, later = np.zeros(len(values)), 0.0
    for step in reversed(range(len(values))):
        later = values[step] + (0.0 if ends[step] else gamma * later)
        sums[step] = later
    return sums


def play(env: gym.Env, steps: int, gamma: float) -> Play:
    """Play, cut at an episode's end where three quarters are over; targets scaled to the first part's mean and std.

    :raises ValueError: when no episode ends in the last quarter
    """
    random = np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    observations, rewards, ends = [], np.zeros(steps), np.zeros(steps, bool)
    action = env.action_space.sample()
    for step in range(steps):
        observations.append(observation)
        if random.random() > KEEP_ACTION:
            action = env.action_space.sample()
        observation, reward, terminated, truncated, _ = env.step(action)
        rewards[step], ends[step] = float(reward), terminated or truncated
        if ends[step]:
            observation, _ = env.reset()
    last = np.flatnonzero(ends[3 * steps // 4 :])
    if not last.size:
        raise ValueError(f"no episode ended in the last quarter of {steps} steps; take more")
    cut = 3 * steps // 4 + int(last[0]) + 1
    targets = np.stack([discounted(rewards, ends, gamma), discounted(ends.astype(float), ends, gamma)], axis=1)
    targets = (targets - targets[:cut].mean(0)) / targets[:cut].std(0)
    whole = {name: torch.tensor(np.stack([one[name] for one in observations])) for name in observations[0]}
    wanted = torch.tensor(targets, dtype=torch.float32)
    return Play(
        require_keypoints(env.observation_space),
        {name: values[:cut] for name, values in whole.items()},
        wanted[:cut],
        {name: values[cut:] for name, values in whole.items()},
        wanted[cut:],
    )


def explained(predicted: Tensor, wanted: Tensor) -> list[float]:
    """Share of each column's variance that predictions explain; negative where the mean alone does better."""
    return (1 - (predicted - wanted).square().mean(0) / wanted.var(0, unbiased=False)).tolist()


def judge(variant: EncoderVariant, data: Play, updates: tuple[int, ...], seed: int) -> list[list[float]]:
    """Train an encoder; the explained shares of the targets after each number of updates."""
    torch.manual_seed(seed)
    encoder = variant.make(data.observation_space)
    network = nn.Sequential(encoder, nn.Linear(encoder.features_dim, len(TARGETS)))
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    shares = []
    for update in range(1, updates[-1] + 1):
        batch = torch.randint(len(data.learned_targets), (BATCH_SIZE,))
        predicted = network(rows_of(data.learned, batch, variant))
        loss = (predicted - data.learned_targets[batch]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update in updates:
            with torch.no_grad():
                parts = [
                    network(rows_of(data.judged, slice(start, start + CHUNK), variant))
                    for start in range(0, len(data.judged_targets), CHUNK)
                ]
            shares.append(explained(torch.cat(parts), data.judged_targets))
    return shares


def rows_of(data: dict[str, Tensor], rows: Tensor | slice, variant: EncoderVariant) -> dict[str, Tensor]:
    """Observations of some steps as the encoder takes them; images, where it reads them, as floats in [0, 1]."""
    found = {name: values[rows] for name, values in data.items() if name != "image"}
    return {**found, "image": data["image"][rows].float() / 255} if variant.reads_images else found


def report(results: Path, speed: Path, agents: Path) -> str:
    """The tables of all games, and that of agents.

    :param results: folder of the games' JSON files
    :param speed: JSON file of milliseconds, which may be missing
    :param agents: folder of the agents' JSON files, which may be missing
    """
    timed = json.loads(speed.read_text()) if speed.exists() else None
    timed_names = timed["ms"] if timed else ()
    lines: list[str] = []
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text())
        updates = result["config"]["updates"]
        found = result["variants"]
        names = [name for name in dict.fromkeys((*VARIANTS, *found)) if name in found or name in timed_names]
        titles = [f"{target}, {count}" for target in TARGETS for count in updates]
        rows = [
            [name, *(cells(found[name]) if name in found else ["-"] * len(titles)), *encoder_speed.cells(timed, name)]
            for name in names
        ]
        peaks = f", {result['keypoints']} keypoints" if "keypoints" in result else ""
        lines += ["", f"## {result['game']}{peaks}", ""]
        lines += table(["encoder", *titles, *encoder_speed.titles(timed)], rows)
        lines += ["", f"`{result['command']}`, commit {result['commit']}"]
    if timed is not None:
        lines += [
            "",
            f"Milliseconds: `{timed['command']}`, commit {timed['commit']}, {timed['machine']['cpu']}, 1 thread",
        ]
    return filled(NOTES, games=lines[1:] or "None yet.", agents=agents_table(agents) if agents.is_dir() else None)


def cells(shares: list[list[list[float]]]) -> list[str]:
    """Cells of a row from shares (seeds, updates, targets)."""
    array = np.array(shares)
    return [
        f"{of_seeds.mean():.2f} [{of_seeds.min():.2f}, {of_seeds.max():.2f}]"
        for target, update in itertools.product(range(array.shape[2]), range(array.shape[1]))
        for of_seeds in [array[:, update, target]]
    ]


def main(config: EncoderBenchmark) -> None:
    """Judge and time what the JSON files do not hold yet, and write the table."""
    for game in config.games:
        peaks = f"-{config.num_keypoints}" if config.num_keypoints else ""
        path = config.results / f"{game.lower()}{peaks}.json"
        settings = settings_of(config, "num_keypoints", "seeds", "steps", "updates", "gamma")
        found = made_before(path, settings) or {"variants": {}, "config": settings}
        missing = [name for name in config.variants if name not in found["variants"]]
        if not missing:
            continue
        images = any(VARIANTS[name].reads_images for name in missing)
        env = PermaKeyObservation(
            make_atari_env(game, seed=0),
            shipped_name(game, "permakey", "clean"),
            keep_image=images,
            readout=ReadoutConfig(readout="peaks", num_keypoints=config.num_keypoints),
        )
        data = play(env, config.steps, config.gamma)
        found["keypoints"] = len(data.learned["keypoints"][0])
        for name in missing:
            shares = [judge(VARIANTS[name], data, config.updates, seed) for seed in range(config.seeds)]
            found["variants"][name] = shares
            write_json(path, {**found, "game": game, **provenance()})
            print(f"{game}, {name}: {', '.join(cells(shares))}", flush=True)
    encoder_speed.measure(config.speed, config.variants, config.turns)
    write_atomically(config.table, report(config.results, config.speed, config.agents).encode())
    print(config.table)


def command() -> None:
    """The command line."""
    run_command("variants.encoders", EncoderBenchmark, main)


if __name__ == "__main__":
    command()
