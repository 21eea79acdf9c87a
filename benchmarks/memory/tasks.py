"""Tasks that need memory, small enough for one CPU core, as gymnasium environments; and CartPole, which needs none.

    gymnasium.make("benchmarks.memory.tasks:TMaze-v0", length=30)

Of each, what a random policy and a policy without memory reach is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

CARTPOLE_STEPS = 500
CARTPOLE_SUCCESS_STEPS = 475
"""CartPole-v1 counts as solved from this return on."""


class CartPoleWithoutVelocities(gym.ObservationWrapper):
    """CartPole-v1 of which the cart's place and the pole's angle are seen, but not their velocities.

    Observations: float32 (2,), the place in metres and the angle in units of 0.2 rad, so that both are about one.
    """

    def __init__(self) -> None:
        super().__init__(CartPoleEnv())
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Place and angle of CartPole's own observation."""
        return observation[[0, 2]] * np.array([1, 5], np.float32)


class TMaze(gym.Env):
    """A corridor that ends in a junction: the sign at its beginning tells which way is right.

    Bakker, "Reinforcement Learning with Long Short-Term Memory", NIPS 2001. Here the walk along the corridor goes by
    itself, as in the passive T-maze of Ni et al., https://arxiv.org/abs/2307.03864, so that it is memory that is tested
    and not exploration.

    Observations: float32 (3,), sign of way 0, sign of way 1, junction; all zero in the corridor. Actions: the two
    ways, without effect before the junction. Reward: 1 for the right way there, which ends the episode, else 0.

    :param length: steps from the sign to the junction
    :raises ValueError: when it is below 1
    """

    observation_space = spaces.Box(0, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, length: int = 10) -> None:
        if length < 1:
            raise ValueError(f"a T-maze needs a length of at least 1, not {length}")
        self.length = length

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Go to the beginning, where a new sign is seen."""
        super().reset(seed=seed)
        self.right_way, self.place = int(self.np_random.integers(2)), 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Walk on, or choose a way."""
        if self.place == self.length:
            return np.zeros(3, np.float32), float(action == self.right_way), True, False, {}
        self.place += 1
        return self._observation(), 0.0, False, False, {}

    def _observation(self) -> np.ndarray:
        observation = np.zeros(3, np.float32)
        if self.place == 0:
            observation[self.right_way] = 1
        observation[2] = self.place == self.length
        return observation


gym.register("CartPoleWithoutVelocities-v0", CartPoleWithoutVelocities, max_episode_steps=CARTPOLE_STEPS)
gym.register("TMaze-v0", TMaze)


@dataclass(frozen=True)
class Task:
    """A task with its measure of success.

    :param family: tasks of one family are learnt with the same settings
    :param make: makes the environment, its rewards as they are
    :param success: returns of episodes (E,) to the success of each (E,), from 0 to 1
    :param chance: success rate of the random policy
    :param memoryless: success rate that no policy without memory exceeds; None where it is not known
    :param reward_scale: training alone multiplies rewards by this, unless an agent's settings have a scale of their
        own; returns near 1 suit the Huber loss
    :param episode_steps: of an episode that takes its course
    :param measure: what tables show
    :param test_episodes: new episodes that the best checkpoint plays
    """

    family: str
    make: Callable[[], gym.Env]
    success: Callable[[np.ndarray], np.ndarray]
    chance: float
    memoryless: float | None
    reward_scale: float
    episode_steps: int
    measure: Literal["mean_return", "success"] = "success"
    test_episodes: int = 100


def tmaze(length: int) -> Task:
    """The T-maze: an episode is a success when the right way is taken."""
    return Task(
        family="tmaze",
        make=lambda: gym.make("TMaze-v0", length=length),
        success=lambda returns: returns,
        chance=1 / 2,
        memoryless=1 / 2,
        reward_scale=1.0,
        episode_steps=length + 1,
    )


TASKS = {
    "cartpole": Task(
        family="cartpole",
        make=lambda: gym.make("CartPoleWithoutVelocities-v0"),
        success=lambda returns: (returns >= CARTPOLE_SUCCESS_STEPS).astype(float),
        chance=0.0,
        memoryless=None,
        reward_scale=0.1,
        episode_steps=CARTPOLE_STEPS,
        measure="mean_return",
        test_episodes=20,
    ),
    "tmaze-10": tmaze(10),
    "tmaze-30": tmaze(30),
    "cartpole-v1": Task(
        family="cartpole-v1",
        make=lambda: gym.make("CartPole-v1"),
        success=lambda returns: (returns >= CARTPOLE_SUCCESS_STEPS).astype(float),
        chance=0.0,
        memoryless=None,
        reward_scale=1.0,
        episode_steps=CARTPOLE_STEPS,
        measure="mean_return",
        test_episodes=20,
    ),
}
