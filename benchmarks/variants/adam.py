"""Does a larger epsilon keep Adam's steps tame? Gradient norms and errors of the paper's agent on one fixed buffer.

    OMP_NUM_THREADS=1 python -m benchmarks.variants adam

RecurrentDQN with its defaults plays at random; then agents with the same first weights learn from these steps and the
same batches, each with another epsilon of Adam. Without new play nothing but the optimizer differs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.harness.command import run_command
from benchmarks.harness.markdown_blocks import filled
from benchmarks.harness.results import made_before, settings_of
from benchmarks.harness.tables import table
from benchmarks.keypoints.run import shipped_name
from sb3_permakey import PermaKeyObservation, RecurrentDQN, make_atari_env
from sb3_permakey.files import write_atomically, write_json
from sb3_permakey.keypoints import checkpoint_exists
from sb3_permakey.provenance import provenance

NOTES = Path(__file__).with_name("adam.md")
FIGURES = ("grad_norm", "td_error", "q_mean")
"""What an update logs: the gradient's norm before it is clipped, the mean absolute TD error, the mean value."""


@dataclass(frozen=True)
class AdamBenchmark:
    """Learn from one buffer with several epsilons."""

    games: tuple[str, ...] = ("MsPacman", "Seaquest")
    """Games; each needs a checkpoint that comes with the package."""
    epsilons: tuple[float, ...] = (1e-8, 1.5e-4)
    """Adam's epsilons; torch's default is 1e-8, BBF and Rainbow have 1.5e-4."""
    seeds: int = 2
    """Seeds of weights and batches."""
    steps: int = 5_000
    """Steps of random play."""
    updates: int = 4_000
    """Updates of each agent."""
    parts: int = 4
    """Of the updates, each with its own means."""
    results: Path = Path("benchmarks/results/adam")
    """Where the JSON files are, one a game; games that it holds are not done again."""
    table: Path = Path("benchmarks/results/adam.md")
    """Markdown file to write."""

    def __post_init__(self) -> None:
        for game in self.games:
            if not checkpoint_exists(shipped_name(game, "permakey", "clean")):
                raise ValueError(f"there is no checkpoint of {game} in the package")
        if self.parts < 1 or self.updates % self.parts:
            raise ValueError(f"updates must be a multiple of parts, not {self.updates} in {self.parts}")


def played(env: VecEnv | PermaKeyObservation, steps: int) -> RecurrentDQN:
    """An agent that has played at random and learned nothing, with its buffer."""
    # Each episode takes a slot more than it has steps.
    agent = RecurrentDQN("PermaKeyPolicy", env, buffer_size=2 * steps, learning_starts=steps, seed=0, device="cpu")
    return agent.learn(steps)


def learn(player: RecurrentDQN, epsilon: float, seed: int, updates: int, parts: int) -> dict[str, list[float]]:
    """Means of `FIGURES` in each part of the updates of a new agent, from the player's buffer."""
    policy = {"optimizer_kwargs": {"eps": epsilon}}
    agent = RecurrentDQN("PermaKeyPolicy", player.env, buffer_size=100, seed=seed, device="cpu", policy_kwargs=policy)
    agent.replay_buffer = player.replay_buffer
    agent.set_logger(configure(None, []))
    set_random_seed(seed)
    means: dict[str, list[float]] = {name: [] for name in FIGURES}
    for _ in range(parts):
        agent.train(updates // parts, agent.batch_size)
        for name, values in means.items():
            values.append(float(agent.logger.name_to_value[f"train/{name}"]))
    return means


def report(results: Path) -> str:
    """The tables of all games."""
    lines: list[str] = []
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text())
        config = result["config"]
        each = config["updates"] // config["parts"]
        titles = [f"{each * part:,} to {each * (part + 1):,}" for part in range(config["parts"])]
        rows = [
            [f"{name.replace('_', ' ')}, {epsilon}", *(_cell(runs, name, part) for part in range(config["parts"]))]
            for name in FIGURES
            for epsilon, runs in result["epsilons"].items()
        ]
        lines += ["", f"## {result['game']}", "", *table(["figure, epsilon; updates", *titles], rows)]
        lines += ["", f"`{result['command']}`, commit {result['commit']}"]
    return filled(NOTES, games=lines[1:] or "None yet.")


def _cell(runs: list[dict[str, list[float]]], name: str, part: int) -> str:
    """The mean over seeds, and in brackets each."""
    values = [run[name][part] for run in runs]
    return f"{sum(values) / len(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"


def main(config: AdamBenchmark) -> None:
    """Learn on the games that the folder does not hold yet, and write the tables."""
    settings = settings_of(config, "epsilons", "seeds", "steps", "updates", "parts")
    for game in config.games:
        path = config.results / f"{game.lower()}.json"
        if made_before(path, settings):
            continue
        env = PermaKeyObservation(make_atari_env(game, seed=0), shipped_name(game, "permakey", "clean"))
        player = played(env, config.steps)
        epsilons: dict[str, Any] = {
            f"{epsilon:g}": [learn(player, epsilon, seed, config.updates, config.parts) for seed in range(config.seeds)]
            for epsilon in config.epsilons
        }
        threads = torch.get_num_threads()
        write_json(path, {"game": game, "config": settings, "epsilons": epsilons, "threads": threads, **provenance()})
        print(path, flush=True)
    write_atomically(config.table, report(config.results).encode())
    print(config.table)


def command() -> None:
    """The command line."""
    run_command("variants.adam", AdamBenchmark, main)


if __name__ == "__main__":
    command()
