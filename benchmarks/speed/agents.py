"""Steps per second of the agents, acting and learning, side by side in one run.

    python -m benchmarks.speed agents

All play MsPacman; on pixels all have SB3's NatureCNN. They take turns of some seconds, so that whatever else
the machine does slows all of them down; the ratio to SB3's DQN is what counts. Each one's peak memory is that of a
process of its own. Replay bytes are counted, not estimated.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib import QRDQN, RecurrentPPO
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from benchmarks.harness.command import run_command
from benchmarks.harness.pool import in_processes
from sb3_permakey import PermaKeyObservation, RecurrentDQN, RecurrentQRDQN, make_atari_env
from sb3_permakey.common.sequence_buffer import SequenceReplayBuffer
from sb3_permakey.files import write_json
from sb3_permakey.keypoints.device import freed_memory_kept
from sb3_permakey.provenance import provenance

GAME = "MsPacman"
REFERENCE = "DQN, pixels"
WARM_UP_STEPS = 200
STEPS_AT_ONCE = 40
"""Steps between two looks at the clock."""


@dataclass(frozen=True)
class SpeedBenchmark:
    """Measure steps/s, peak memory and replay bytes of the agents."""

    agents: tuple[str, ...] = ()
    """Names of the agents; empty: all. SB3's DQN always takes part."""
    turn_s: float = 4.0
    """Seconds of a turn; acting alone takes a quarter of that."""
    turns: int = 6
    """Turns of each agent; the median counts."""
    threads: int = 2
    """CPU threads."""
    device: str = "auto"
    """Where the networks are."""
    checkpoint: str = "mspacman-teacher"
    """Keypoints of the agents that see them."""
    out: Path = Path("benchmarks/results/agents_speed.json")
    """JSON file to write."""


def off_policy(algorithm: type[OffPolicyAlgorithm], policy: str, env: gym.Env, device: str, **kwargs: Any) -> Any:
    """An agent that learns from its 100th step on, every 4 steps."""
    return algorithm(policy, env, learning_starts=100, train_freq=4, buffer_size=5000, device=device, seed=0, **kwargs)


def equal_batch(algorithm: type[OffPolicyAlgorithm]) -> Callable[..., Any]:
    """A recurrent agent that learns from as many states per update as DQN: 4 windows of 8, one step ahead."""
    return partial(off_policy, algorithm, "CnnLstmPolicy", batch_size=4, sequence_length=8, n_steps=1)


PIXELS: dict[str, Callable[..., Any]] = {
    REFERENCE: partial(off_policy, DQN, "CnnPolicy", batch_size=32),
    "RecurrentDQN, pixels, 4 windows of 8": equal_batch(RecurrentDQN),
    "RecurrentDQN, pixels, 16 windows of 8, 3-step": partial(off_policy, RecurrentDQN, "CnnLstmPolicy"),
    "QRDQN, pixels": partial(off_policy, QRDQN, "CnnPolicy", batch_size=32),
    "RecurrentQRDQN, pixels, 4 windows of 8": equal_batch(RecurrentQRDQN),
    "RecurrentPPO, pixels": lambda env, device: RecurrentPPO("CnnLstmPolicy", env, n_steps=100, device=device, seed=0),
}
KEYPOINTS: dict[str, tuple[dict[str, Any], Callable[..., Any]]] = {
    "RecurrentDQN, PKey-GNN": ({}, partial(off_policy, RecurrentDQN, "PermaKeyPolicy")),
    "RecurrentDQN, peaks and GNN, K = 20": (
        {"readout": "peaks", "num_keypoints": 20},
        partial(off_policy, RecurrentDQN, "PermaKeyPolicy"),
    ),
    "RecurrentDQN, PKey-CNN of 32 filters": (
        {"keep_image": True},
        partial(
            off_policy,
            RecurrentDQN,
            "PermaKeyPolicy",
            policy_kwargs={"keypoint_encoder": "cnn", "features_extractor_kwargs": {"filters": 32}},
        ),
    ),
}


def make_agent(name: str, config: SpeedBenchmark) -> BaseAlgorithm:
    """The agent with its environment."""
    env: gym.Env = make_atari_env(GAME, seed=0)
    if name in PIXELS:
        return PIXELS[name](env=env, device=config.device)
    observation, make = KEYPOINTS[name]
    return make(env=PermaKeyObservation(env, config.checkpoint, **observation), device=config.device)


def turn(agent: BaseAlgorithm, seconds: float) -> float:
    """Steps per second of acting and learning for some seconds."""
    before, started = agent.num_timesteps, time.perf_counter()
    while time.perf_counter() - started < seconds:
        learn(agent, STEPS_AT_ONCE)
    return (agent.num_timesteps - before) / (time.perf_counter() - started)


def learn(agent: BaseAlgorithm, steps: int) -> None:
    """Let an agent go on."""
    agent.learn(steps, reset_num_timesteps=False, log_interval=None)  # type: ignore[arg-type]


def peak_memory(name: str, config: SpeedBenchmark) -> float:
    """Peak resident MiB of a process that only makes this agent and lets it learn."""
    torch.set_num_threads(config.threads)
    learn(make_agent(name, config), WARM_UP_STEPS)
    # Not getrusage's figure, which a process inherits from the one that started it.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def of_own_process(name: str, config: SpeedBenchmark) -> float:
    """The agent's peak memory in a process that ends with it."""
    [outcome] = in_processes(partial(peak_memory, config=config), [name], 1, config.threads)
    if outcome.error is not None:
        raise outcome.error
    return outcome.result


def replay_bytes(buffer: ReplayBuffer) -> float:
    """Bytes of a replay buffer for each step that it can hold."""
    if isinstance(buffer, SequenceReplayBuffer):
        arrays = [array for array in buffer.contents().values() if array.ndim > 1]
        filled = arrays[0].shape[0] * arrays[0].shape[1]
        return sum(array.nbytes for array in arrays) / filled
    parts = vars(buffer).values()
    arrays = [array for part in parts for array in (part.values() if isinstance(part, dict) else [part])]
    return sum(getattr(array, "nbytes", 0) for array in arrays) / (buffer.buffer_size * buffer.n_envs)


def sb3_replay_bytes(agent: OffPolicyAlgorithm) -> float:
    """Bytes a step of SB3's own buffer for the same observations."""
    kind = DictReplayBuffer if isinstance(agent.observation_space, gym.spaces.Dict) else ReplayBuffer
    return replay_bytes(kind(1000, agent.observation_space, agent.action_space, device="cpu"))


def acting_speed(agent: BaseAlgorithm, seconds: float) -> float:
    """Steps per second of acting alone: the greedy action of every step, with the environment and its keypoints."""
    env = agent.get_env()
    assert env is not None
    observation, state, starts = env.reset(), None, np.ones(env.num_envs, dtype=bool)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        steps += env.num_envs
        actions, state = agent.predict(observation, state, starts, deterministic=True)
        observation, _, starts, _ = env.step(actions)
    # The training environments were reset behind the agent's back.
    agent._last_obs = None
    return steps / (time.perf_counter() - started)


def measure(config: SpeedBenchmark) -> dict[str, dict[str, Any]]:
    """Speeds, memory and replay bytes of all agents, by name."""
    names = [REFERENCE, *(name for name in config.agents or (*PIXELS, *KEYPOINTS) if name != REFERENCE)]
    agents = {name: make_agent(name, config) for name in names}
    for agent in agents.values():
        learn(agent, WARM_UP_STEPS)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    acting: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(config.turns):
        for name, agent in agents.items():
            speeds[name].append(turn(agent, config.turn_s))
            acting[name].append(acting_speed(agent, config.turn_s / 4))
    memory = {name: of_own_process(name, config) for name in names}

    results: dict[str, dict[str, Any]] = {}
    for name, agent in agents.items():
        ratios = [own / reference for own, reference in zip(speeds[name], speeds[REFERENCE], strict=True)]
        results[name] = {
            "steps_per_s": statistics.median(speeds[name]),
            "ratio_to_dqn": statistics.median(ratios),
            "steps_per_s_of_each_turn": speeds[name],
            "acting_steps_per_s": statistics.median(acting[name]),
            "peak_memory_mib": memory[name],
        }
        if isinstance(agent, OffPolicyAlgorithm):
            assert agent.replay_buffer is not None
            own, sb3 = replay_bytes(agent.replay_buffer), sb3_replay_bytes(agent)
            results[name] |= {"replay_bytes_per_step": own, "share_of_sb3s_buffer": own / sb3}
    return results


def table(results: dict[str, dict[str, Any]]) -> list[str]:
    """The results as a Markdown table."""
    lines = [
        "| agent | steps/s, learning | of DQN's | steps/s, acting | peak MiB | replay bytes a step | of SB3's |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        replay = (
            f"{row['replay_bytes_per_step']:.0f} | {row['share_of_sb3s_buffer']:.2f}"
            if "replay_bytes_per_step" in row
            else "- | -"
        )
        lines.append(
            f"| {name} | {row['steps_per_s']:.0f} | {row['ratio_to_dqn']:.2f} | {row['acting_steps_per_s']:.0f} "
            f"| {row['peak_memory_mib']:.0f} | {replay} |"
        )
    return lines


@freed_memory_kept()
def main(config: SpeedBenchmark) -> None:
    """Measure, print and write."""
    torch.set_num_threads(config.threads)
    results = measure(config)
    write_json(
        config.out,
        {"game": GAME, "threads": config.threads, "device": config.device, "agents": results, **provenance()},
    )
    print("\n".join(table(results)))
    print(config.out)


def command() -> None:
    """The command line."""
    run_command("speed.agents", SpeedBenchmark, main)


if __name__ == "__main__":
    command()
