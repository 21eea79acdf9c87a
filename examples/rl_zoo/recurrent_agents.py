"""Makes our agents known to RL Zoo: as algorithms, with hyperparameters, for its optimisation."""

import argparse
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import optuna
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_permakey import Rainbow, RecurrentDQN, RecurrentQRDQN, make_atari_env

AGENTS: dict[str, type[BaseAlgorithm]] = {
    "recurrent_dqn": RecurrentDQN,
    "recurrent_qrdqn": RecurrentQRDQN,
    "rainbow": Rainbow,
}
HYPERPARAMETERS = Path(__file__).with_name("hyperparameters")
POWERS = ("batch_size", "sequence_length")
POLICY_ARGUMENTS = ("lstm_hidden_size", "rnn_type", "dueling", "n_quantiles")


def sample_recurrent_dqn(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict) -> dict[str, Any]:
    """Draw RecurrentDQN's hyperparameters, as RL Zoo's samplers do."""
    return to_arguments(_suggest(trial))


def sample_recurrent_qrdqn(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict) -> dict[str, Any]:
    """Draw RecurrentQRDQN's hyperparameters, as RL Zoo's samplers do."""
    return to_arguments({**_suggest(trial), "n_quantiles": trial.suggest_int("n_quantiles", 5, 200)})


def sample_rainbow(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict) -> dict[str, Any]:
    """Draw Rainbow's hyperparameters, as RL Zoo's samplers do."""
    sampled = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 5e-3, log=True),
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 1e-3, 0.1, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 4, 7),
        "n_steps": trial.suggest_int("n_steps", 1, 10),
        "gradient_steps": trial.suggest_int("gradient_steps", 1, 4),
        "reset_interval": trial.suggest_categorical("reset_interval", [0, 20_000, 40_000]),
        "weight_decay": trial.suggest_categorical("weight_decay", [0.0, 0.1]),
        "tau": trial.suggest_float("tau", 1e-3, 0.1, log=True),
        "exploration_fraction": trial.suggest_float("exploration_fraction", 0.02, 0.5),
        "exploration_final_eps": trial.suggest_float("exploration_final_eps", 0.0, 0.1),
        "value_head": trial.suggest_categorical("value_head", ["scalar", "quantile", "categorical"]),
    }
    return to_arguments(sampled)


def _suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 5e-3, log=True),
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 1e-3, 0.1, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 3, 6),
        "sequence_length_pow": trial.suggest_int("sequence_length_pow", 2, 6),
        "burn_in": trial.suggest_categorical("burn_in", [0, 8, 20]),
        "recurrent_state": trial.suggest_categorical("recurrent_state", ["zero", "stored"]),
        "n_steps": trial.suggest_int("n_steps", 1, 5),
        "train_freq": trial.suggest_int("train_freq", 1, 8),
        "tau": trial.suggest_float("tau", 1e-3, 0.1, log=True),
        "exploration_fraction": trial.suggest_float("exploration_fraction", 0.05, 0.5),
        "exploration_final_eps": trial.suggest_float("exploration_final_eps", 0.01, 0.2),
        "lstm_hidden_size": trial.suggest_categorical("lstm_hidden_size", [32, 64, 128]),
        "rnn_type": trial.suggest_categorical("rnn_type", ["lstm", "gru"]),
        "dueling": trial.suggest_categorical("dueling", [False, True]),
    }


def to_arguments(sampled: dict[str, Any]) -> dict[str, Any]:
    """The agent's arguments of sampled hyperparameters; RL Zoo also calls it for those of a stored trial."""
    sampled = dict(sampled)
    powers = {name: 2 ** sampled.pop(f"{name}_pow") for name in POWERS if f"{name}_pow" in sampled}
    policy = {name: sampled.pop(name) for name in POLICY_ARGUMENTS if name in sampled}
    arguments = {"gamma": 1 - sampled.pop("one_minus_gamma"), **powers, **sampled}
    return {**arguments, "policy_kwargs": policy} if policy else arguments


def prefer_our_hyperparameters() -> None:
    """Have RL Zoo's train read hyperparameters/ for our agents, unless the command line names another file."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--algo")
    algo = parser.parse_known_args()[0].algo
    if algo in AGENTS:
        # Before the other arguments, of which a later --conf-file wins.
        sys.argv[1:1] = ["--conf-file", str(HYPERPARAMETERS / f"{algo}.yml")]


ALGOS.update(AGENTS)
HYPERPARAMS_SAMPLER.update(
    recurrent_dqn=sample_recurrent_dqn, recurrent_qrdqn=sample_recurrent_qrdqn, rainbow=sample_rainbow
)
HYPERPARAMS_CONVERTER.update(dict.fromkeys(AGENTS, to_arguments))
# RGB frames 84x84; RL Zoo wraps whole ids, its own Atari ids end in gray frames.
gym.register("MsPacmanFrames-v0", make_atari_env, kwargs={"game": "MsPacman"}, disable_env_checker=True)
