"""What the bars of noisy Atari cost an acting agent: steps a second with bars as a part of those without.

    python -m benchmarks.speed noisy --update

One thread. An agent plays with the student of each game and kind of frames, and with its teacher, whose streaming lives
on frames that change little. With and without bars they take turns; the median turn counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.harness.command import run_command
from benchmarks.harness.tables import table
from benchmarks.keypoints.run import shipped_name
from sb3_permakey import PermaKeyObservation, Rainbow, make_atari_env
from sb3_permakey.common.presets import RAINBOW_PEAKS
from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.files import write_json
from sb3_permakey.provenance import provenance

BARS: dict[str, DistractorKind | None] = {"clean": None, "both": "both"}
METHODS = {"student": "distilled", "teacher, streaming": "permakey"}
"""Of whose checkpoints the keypoints are."""


@dataclass(frozen=True)
class NoisySpeed:
    """Time agents that act and do not learn."""

    games: tuple[str, ...] = ("MsPacman", "Seaquest")
    """Games whose checkpoints for frames with bars come along."""
    steps: int = 150
    """Steps of a turn."""
    turns: int = 8
    """Turns of each; the median counts."""
    out: Path = Path("benchmarks/results/noisy_speed.json")
    """JSON file to write."""


def player(game: str, method: str, noise: str) -> Callable[[int], None]:
    """What plays so many steps of a game, greedily, by a policy with its first weights."""
    game_env = make_atari_env(game, seed=0, distractor=BARS[noise])
    env = PermaKeyObservation(game_env, shipped_name(game, method, noise), readout="peaks", history=3, device="cpu")
    model = Rainbow("PermaKeyPolicy", env, seed=0, device="cpu", **{**RAINBOW_PEAKS, "buffer_size": 100})
    observation, _ = env.reset(seed=0)

    def play(steps: int) -> None:
        nonlocal observation
        for _ in range(steps):
            action, _ = model.predict(observation, deterministic=True)
            observation, _, terminated, truncated, _ = env.step(int(action))
            if terminated or truncated:
                observation, _ = env.reset()

    return play


def measure(game: str, config: NoisySpeed) -> dict[str, dict[str, list[float]]]:
    """Steps a second of each turn, by whose keypoints and by the kind of frames."""
    players = {(who, noise): player(game, method, noise) for who, method in METHODS.items() for noise in BARS}
    found: dict[str, dict[str, list[float]]] = {who: {noise: [] for noise in BARS} for who in METHODS}
    for play in players.values():
        play(config.steps)
    for _ in range(config.turns):
        for (who, noise), play in players.items():
            started = time.perf_counter()
            play(config.steps)
            found[who][noise].append(config.steps / (time.perf_counter() - started))
    return found


def noisy_table(games: dict[str, dict[str, dict[str, list[float]]]]) -> list[str]:
    """The medians, and their ratio."""
    rows = []
    for game, of_game in games.items():
        for who, turns in of_game.items():
            clean, noisy = (statistics.median(turns[noise]) for noise in BARS)
            rows.append([game, who, f"{clean:.0f}", f"{noisy:.0f}", f"{noisy / clean:.2f}"])
    return table(["game", "keypoints of", "steps/s, clean", "steps/s, with bars", "ratio"], rows)


def main(config: NoisySpeed) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    games = {game: measure(game, config) for game in config.games}
    write_json(config.out, {"threads": 1, "device": "cpu", "games": games, **provenance()})
    print("\n".join([*noisy_table(games), str(config.out)]))


def command() -> None:
    """The command line."""
    run_command("speed.noisy", NoisySpeed, main)


if __name__ == "__main__":
    command()
