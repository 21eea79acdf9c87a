"""How wrong is the recurrent state that a window is learned from? By burn-in, for stored states and for zeros.

    OMP_NUM_THREADS=1 python -m benchmarks.memory.stale_states

An agent of the STRONG preset learns from the start of its run on. Then windows of its replay buffer begin, as in an
update, with a state that acting had some thousand steps ago, or with zeros, and a burn-in. What the present networks
make of their first and last step is compared with what they make of it at the end of the whole episode so far, which
is the truth that the state stands for.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.command import run_command
from benchmarks.harness.markdown_blocks import filled
from benchmarks.harness.results import made_before, settings_of
from benchmarks.harness.tables import table
from benchmarks.keypoints.run import shipped_name
from sb3_permakey import PermaKeyObservation, RecurrentDQN, make_atari_env
from sb3_permakey.common.presets import STRONG
from sb3_permakey.common.recurrent_networks import RecurrentQNetwork
from sb3_permakey.common.sequence_buffer import SequenceReplayBuffer
from sb3_permakey.common.windows import BurnIn
from sb3_permakey.files import write_atomically, write_json
from sb3_permakey.keypoints import checkpoint_exists
from sb3_permakey.provenance import provenance

NOTES = Path(__file__).with_name("stale_states.md")
NETWORKS = ("online", "target")
STATES = ("stored", "zero")
PLACES = ("first", "last")
"""Steps of a window that are compared."""
TIMED_UPDATES = 10


@dataclass(frozen=True)
class StaleStatesBenchmark:
    """Compare the states that windows begin with, with the true ones."""

    games: tuple[str, ...] = ("MsPacman",)
    """Games; each needs a checkpoint that comes with the package."""
    seeds: int = 1
    """Seeds of each game."""
    steps: int = 10_000
    """Agent steps."""
    learning_starts: int = 1000
    """Random steps before learning starts."""
    ages: tuple[int, int] = (3000, 8000)
    """Youngest and oldest first step of a window, in steps before the newest."""
    windows: int = 1000
    """Windows, the same for all states."""
    burn_ins: tuple[int, ...] = (0, 4, 8, 16, 32)
    """Steps of burn-in."""
    results: Path = Path("benchmarks/results/stale_states")
    """Where the JSON files are, one a run; runs that it holds are not made again."""
    table: Path = Path("benchmarks/results/stale_states.md")
    """Markdown file to write."""

    def __post_init__(self) -> None:
        for game in self.games:
            if not checkpoint_exists(shipped_name(game, "permakey", "clean")):
                raise ValueError(f"there is no checkpoint of {game} in the package")
        youngest, oldest = self.ages
        if not STRONG["sequence_length"] <= youngest < oldest < self.steps:
            raise ValueError(
                f"ages must rise, from a window's {STRONG['sequence_length']} steps on and below the run's "
                f"{self.steps}, not {self.ages}"
            )
        if not self.burn_ins or min(self.burn_ins) < 0:
            raise ValueError(f"burn_ins must be numbers from 0 on, not {self.burn_ins}")


class History(NamedTuple):
    """All that the buffer of one environment holds, in the order of play.

    :param observations: (T, *observation shape) each
    :param states: (T, parts, layers, units), the recurrent states before these, as acting had them
    :param firsts: (T,) where the slot's episode begins
    :param lasts: (T,) where it ends, or the newest slot while it runs
    """

    observations: dict[str, Tensor]
    states: Tensor
    firsts: np.ndarray
    lasts: np.ndarray


def history_of(buffer: SequenceReplayBuffer) -> History:
    """What a buffer holds that has forgotten nothing."""
    contents = buffer.contents()
    if contents["written"] > buffer.buffer_size:
        raise ValueError(f"the buffer of {buffer.buffer_size} slots has forgotten the oldest of its episodes")
    of_one = {name: array[0] for name, array in contents.items() if array.ndim > 1}
    return History(
        {
            name.removeprefix("observation."): torch.from_numpy(array)
            for name, array in of_one.items()
            if name.startswith("observation.")
        },
        torch.from_numpy(of_one["states"]),
        of_one["episode_first"],
        np.minimum(of_one["episode_last"], len(of_one["actions"]) - 1),
    )


@torch.no_grad()
def true_values(net: RecurrentQNetwork, history: History) -> Tensor:
    """Values of all actions at every step, each after its whole episode so far: (T, actions)."""
    values = []
    for first in np.unique(history.firsts):
        whole = slice(first, history.lasts[first] + 1)
        values.append(net.window_values({name: value[whole, None] for name, value in history.observations.items()}))
    return torch.cat(values).squeeze(1).mean(dim=-1)


@torch.no_grad()
def window_values(
    net: RecurrentQNetwork, history: History, starts: np.ndarray, length: int, burn_in: int, stored: bool
) -> Tensor:
    """Values of all actions at the steps of windows, as an update computes them: (length, B, actions).

    :param net: the network
    :param history: what was played
    :param starts: (B,) first steps of the windows
    :param length: their steps
    :param burn_in: steps before them; fewer where the episode began less long ago
    :param stored: whether these begin with the state that acting had, or with zeros
    """

    def observations(steps: np.ndarray) -> dict[str, Tensor]:
        return {name: value[steps] for name, value in history.observations.items()}

    begins = np.maximum(starts - burn_in, history.firsts[starts])
    warm_up = None
    if burn_in:
        before = np.minimum(begins + np.arange(burn_in)[:, None], starts)
        warm_up = BurnIn(observations(before), torch.from_numpy(starts - begins))
    states = net.warmed_up_states(warm_up, history.states[begins] if stored else None)
    return net.window_values(observations(starts + np.arange(length)[:, None]), states).mean(dim=-1)


def differences(values: Tensor, truth: Tensor) -> dict[str, float]:
    """How far values (B, actions) are from the true ones.

    :return: share of other greedy actions; root of the mean squared error of the greedy value, in its standard
        deviations over the windows
    """
    greedy, true_greedy = values.max(dim=1), truth.max(dim=1)
    error = (greedy.values - true_greedy.values).square().mean().sqrt()
    return {
        "other_action": (greedy.indices != true_greedy.indices).float().mean().item(),
        "value_error": (error / true_greedy.values.std(unbiased=False)).item(),
    }


def compare(net: RecurrentQNetwork, history: History, starts: np.ndarray, burn_ins: tuple[int, ...]) -> dict[str, Any]:
    """Differences from the truth by kind of state, burn-in and step of the window."""
    length, truth = STRONG["sequence_length"], true_values(net, history)
    steps = dict(zip(PLACES, (0, length - 1), strict=True))
    return {
        state: {
            str(burn_in): {place: differences(values[step], truth[starts + step]) for place, step in steps.items()}
            for burn_in in burn_ins
            for values in [window_values(net, history, starts, length, burn_in, state == "stored")]
        }
        for state in STATES
    }


def draw_starts(history: History, ages: tuple[int, int], count: int, seed: int) -> np.ndarray:
    """First steps of windows that lie within an episode and are so old, (count,), drawn without replacement.

    :raises ValueError: when there are fewer
    """
    slots = np.arange(len(history.firsts))
    age = slots[-1] - slots
    # An episode's last slot holds no step.
    fits = (ages[0] <= age) & (age <= ages[1]) & (slots + STRONG["sequence_length"] <= history.lasts)
    if fits.sum() < count:
        raise ValueError(f"only {fits.sum()} windows begin {ages[0]} to {ages[1]} steps ago, not {count}")
    return np.sort(np.random.default_rng(seed).choice(np.flatnonzero(fits), count, replace=False))


def update_times_ms(agent: RecurrentDQN, burn_ins: tuple[int, ...]) -> dict[str, float]:
    """Median milliseconds of an update with each burn-in, taking turns; the agent learns on meanwhile."""
    times: dict[int, list[float]] = {burn_in: [] for burn_in in burn_ins}
    for _ in range(TIMED_UPDATES):
        for burn_in in burn_ins:
            agent.replay_buffer.burn_in = burn_in
            started = time.perf_counter()
            agent.train(1, agent.batch_size)
            times[burn_in].append(1000 * (time.perf_counter() - started))
    return {str(burn_in): statistics.median(of_burn_in) for burn_in, of_burn_in in times.items()}


def run(game: str, seed: int, config: StaleStatesBenchmark) -> dict[str, Any]:
    """Train an agent and compare."""
    started = time.perf_counter()
    env = PermaKeyObservation(make_atari_env(game, seed=seed), shipped_name(game, "permakey", "clean"), readout="peaks")
    settings = {**STRONG, "learning_starts": config.learning_starts}
    agent = RecurrentDQN("PermaKeyPolicy", env, seed=seed, device="cpu", **settings)
    agent.learn(config.steps)
    minutes = (time.perf_counter() - started) / 60
    history = history_of(agent.replay_buffer)
    starts = draw_starts(history, config.ages, config.windows, seed)
    agent.policy.set_training_mode(False)
    nets = dict(zip(NETWORKS, (agent.q_net, agent.q_net_target), strict=True))
    since = starts - history.firsts[starts]
    return {
        "game": game,
        "seed": seed,
        "training": {"minutes": minutes, "threads": torch.get_num_threads(), "updates": agent._n_updates},
        "episodes": len(np.unique(history.firsts[starts])),
        "whole": {str(burn_in): float((since <= burn_in).mean()) for burn_in in config.burn_ins},
        "networks": {name: compare(net, history, starts, config.burn_ins) for name, net in nets.items()},
        "update_ms": update_times_ms(agent, config.burn_ins),
    }


def mean_and_range(values: list[float], digits: int) -> str:
    """The mean, and of several values in brackets the lowest and highest."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def report(results: Path) -> str:
    """The tables of all games and networks."""
    lines: list[str] = []
    runs = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    for game in dict.fromkeys(result["game"] for result in runs):
        of_game = [result for result in runs if result["game"] == game]
        settings = of_game[0]["config"]
        youngest, oldest = settings["ages"]
        lines += [
            "",
            f"## {game}",
            "",
            f"{settings['steps']:,} steps, learning from step {settings['learning_starts']:,} on; "
            f"{settings['windows']:,} windows {youngest:,} to {oldest:,} steps old, of "
            f"{mean_and_range([result['episodes'] for result in of_game], 0)} episodes; seeds: {len(of_game)}.",
        ]
        titles = [f"{state}, {place}" for state in STATES for place in PLACES]
        for network in NETWORKS:
            rows = [
                [burn_in, *(cell(of_game, network, state, burn_in, place) for state in STATES for place in PLACES)]
                for burn_in in of_game[0]["whole"]
            ]
            lines += ["", *table([f"burn-in, {network}", *titles], rows)]
        rows = [
            [
                burn_in,
                mean_and_range([100 * result["whole"][burn_in] for result in of_game], 0) + " %",
                mean_and_range([result["update_ms"][burn_in] for result in of_game], 0),
            ]
            for burn_in in of_game[0]["whole"]
        ]
        lines += ["", *table(["burn-in", "windows whose burn-in reaches the episode's start", "ms an update"], rows)]
        first = of_game[0]
        lines += [
            "",
            f"`{first['command']}`, commit {first['commit']}, {first['training']['threads']} thread(s) of "
            f"{first['machine']['cpu']}",
        ]
    return filled(NOTES, games=lines[1:] or "None yet.")


def cell(runs: list[dict[str, Any]], network: str, state: str, burn_in: str, place: str) -> str:
    """Share of other actions and error of the value, means over the runs."""
    found = [result["networks"][network][state][burn_in][place] for result in runs]
    action, error = (np.mean([one[name] for one in found]) for name in ("other_action", "value_error"))
    return f"{100 * action:.0f} % ({error:.2f})"


def main(config: StaleStatesBenchmark) -> None:
    """Make the runs that the folder does not hold yet, and write the table."""
    settings = settings_of(config, "steps", "learning_starts", "ages", "windows", "burn_ins")
    for game in config.games:
        for seed in range(config.seeds):
            path = config.results / f"{game.lower()}-{seed}.json"
            if made_before(path, settings):
                continue
            write_json(path, {**run(game, seed, config), "config": settings, **provenance()})
            print(path, flush=True)
    write_atomically(config.table, report(config.results).encode())
    print(config.table)


def command() -> None:
    """The command line."""
    run_command("memory.stale_states", StaleStatesBenchmark, main)


if __name__ == "__main__":
    command()
