"""Validation games while an agent learns: the best agent of all validations is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_permakey.files import atomic_file

FIRST_VALIDATION_SEED = 1_000_000
"""Validation seeds start here, above those of training and below those of the test."""
VALIDATION_STEPS = 4500
"""A game of validation is cut after so many agent steps, five minutes of play: a policy that is stuck where nothing
threatens it would play on for half an hour."""
VALIDATION_EPSILON = 0.001
"""Probability of a random action in the games of validation. Without any, games differ in the no-ops at their beginning
alone, so that few of them are different and say which agent is best; the test is played without."""
VALIDATION_ENVS = 5
"""Environments of validation, at most."""
BEST_MODEL, VALIDATIONS = "best_model.zip", "evaluations.npz"


class RandomActions(VecEnvWrapper):
    """Replaces some of the actions by random ones; `seed` decides which.

    :param venv: environments with Discrete actions
    :param epsilon: probability of a random action
    :param first_seed: of the choices, until `seed` is called; None for any
    """

    def __init__(self, venv: VecEnv, epsilon: float, first_seed: int | None = None) -> None:
        super().__init__(venv)
        assert isinstance(venv.action_space, spaces.Discrete)
        self.count, self.epsilon = int(venv.action_space.n), epsilon
        self.random = np.random.default_rng(first_seed)

    def seed(self, seed: int | None = None) -> Any:
        """Seed the choices and the environments."""
        self.random = np.random.default_rng(seed)
        return self.venv.seed(seed)

    def reset(self) -> VecEnvObs:
        """Reset the environments."""
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Begin a step with some of the actions."""
        explores = self.random.random(self.num_envs) < self.epsilon
        self.venv.step_async(np.where(explores, self.random.integers(self.count, size=self.num_envs), actions))

    def step_wait(self) -> VecEnvStepReturn:
        """End the step."""
        return self.venv.step_wait()


class Validation(BaseCallback):
    """Plays the validation games and keeps the best model; goes on with the validations that the folder holds.

    The n-th validation has seeds of its own, those that it has in a run that goes on too. Each action is random with
    probability `VALIDATION_EPSILON`.

    :param envs: validation environments, whose Monitor counts whole games
    :param folder: where `BEST_MODEL` and `VALIDATIONS` go
    :param every_steps: agent steps between two validations
    :param episodes: games of each validation
    :param verbose: 1 to print each mean score
    """

    def __init__(self, envs: VecEnv, folder: Path, every_steps: int, episodes: int, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.envs = RandomActions(envs, VALIDATION_EPSILON)
        self.folder, self.every_steps, self.episodes = folder, every_steps, episodes
        self.steps: list[int] = []
        self.scores: list[list[float]] = []
        self.lengths: list[list[int]] = []

    def _init_callback(self) -> None:
        num_envs = self.training_env.num_envs
        self.every_calls = max(self.every_steps // num_envs, 1)
        self.n_calls = self.model.num_timesteps // num_envs
        if (self.folder / VALIDATIONS).exists():
            log = np.load(self.folder / VALIDATIONS)
            self.steps, self.scores, self.lengths = (
                log[name].tolist() for name in ("timesteps", "results", "ep_lengths")
            )

    def _on_step(self) -> bool:
        if self.n_calls % self.every_calls == 0:
            self.validate()
        return True

    def validate(self) -> float:
        """Play the next validation's games; their mean score."""
        self.envs.seed(FIRST_VALIDATION_SEED + len(self.steps) * self.envs.num_envs)
        scores, lengths = evaluate_policy(
            self.model, self.envs, n_eval_episodes=self.episodes, return_episode_rewards=True
        )
        assert isinstance(scores, list)
        assert isinstance(lengths, list)
        mean = float(np.mean(scores))
        best = max((float(np.mean(before)) for before in self.scores), default=-np.inf)
        if mean > best:
            with atomic_file(self.folder / BEST_MODEL) as file:
                self.model.save(file)  # type: ignore[arg-type]
        self.steps.append(self.num_timesteps)
        self.scores.append(scores)
        self.lengths.append(lengths)
        with atomic_file(self.folder / VALIDATIONS) as file:
            np.savez(file, timesteps=self.steps, results=self.scores, ep_lengths=self.lengths)
        self.logger.record("eval/mean_reward", mean)
        self.logger.record("eval/mean_ep_length", float(np.mean(lengths)))
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)
        if self.verbose:
            print(self._report(scores, best), flush=True)
        return mean

    def _report(self, scores: list[float], best_before: float) -> str:
        """The newest validation in one line."""
        mean = float(np.mean(scores))
        games = f"from {min(scores):.1f} to {max(scores):.1f} in {len(scores)} game(s)"
        best = "the best so far" if mean > best_before else f"the best so far is {best_before:.1f}"
        return f"validation after {self.num_timesteps:>7} steps: mean score {mean:.1f}, {games}; {best}"


def validation_scores(folder: Path) -> list[tuple[int, float]]:
    """Steps and mean score of each validation of a run; none where it was shorter than one."""
    if not (folder / VALIDATIONS).exists():
        return []
    log: Any = np.load(folder / VALIDATIONS)
    return [(int(step), float(scores.mean())) for step, scores in zip(log["timesteps"], log["results"], strict=True)]
