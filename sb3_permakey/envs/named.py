"""What commands play: an Atari game, or an environment of one's own, each seen through one function."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

import gymnasium as gym
from gymnasium import spaces

from sb3_permakey.envs.atari import atari_env_id, make_atari_env, plain_game_name
from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.envs.own import PICTURES, make_own_env, require_discrete_actions
from sb3_permakey.settings import require_one

LEARNED_IN = "learned_in"
"""Attribute of an agent, and entry of its file: the environment's id."""


@dataclass(frozen=True)
class NamedEnvironment:
    """An Atari game or an environment of one's own, one of both, by the name that commands take.

    :raises ValueError: when both are named, or neither
    """

    game: str | None = None
    """"MsPacman"."""
    env: str | None = None
    """"module:function" or an id of gymnasium's, as `make_own_env` takes it."""

    def __post_init__(self) -> None:
        require_one(game=self.game, env=self.env)

    @property
    def id(self) -> str:
        """What files say: "ALE/MsPacman-v5", or the own name.

        :raises UnknownGameError: when there is no such game
        """
        return atari_env_id(self.game or "") if self.env is None else self.env

    @property
    def name(self) -> str:
        """The name alone: "MsPacman", or the own name.

        :raises UnknownGameError: when there is no such game
        """
        return plain_game_name(self.id) if self.env is None else self.env

    @property
    def file_name(self) -> str:
        """The name as a part of files' names."""
        return re.sub(r"[^\w.]+", "-", self.name).strip("-")

    @property
    def flags(self) -> tuple[str, str]:
        """As the command line has it."""
        return ("--game", self.name) if self.env is None else ("--env", self.env)

    def make(
        self,
        *,
        seed: int | None = None,
        training: bool = True,
        distractor: DistractorKind | None = None,
        max_steps: int | None = None,
        render: bool = False,
    ) -> gym.Env:
        """The environment, with frames uint8 (84, 84, 3), whose episodes SB3's Monitor counts.

        :param seed: seed of the first reset and of the action space
        :param training: of Atari: lost lives end episodes, rewards are clipped
        :param distractor: bars of noisy Atari; None: none
        :param max_steps: agent steps after which an episode is cut; None: 27,000
        :param render: whether a game's `render` gives pictures; an own environment's does where it can
        :raises UnknownGameError: when there is no such game
        :raises OwnEnvironmentError: when there is no such environment, or it has no frames
        """
        if self.env is not None:
            return make_own_env(self.env, seed=seed, distractor=distractor, max_steps=max_steps)
        return make_atari_env(
            self.game or "",
            seed=seed,
            training=training,
            distractor=distractor,
            max_steps=max_steps,
            render_mode=PICTURES if render else None,
        )

    def actions(self) -> spaces.Discrete:
        """The actions that an agent chooses among.

        :raises OwnEnvironmentError: for continuous actions, or any but Discrete ones that count from 0
        """
        env = self.make()
        try:
            return require_discrete_actions(env.action_space, self.name)
        finally:
            env.close()


def action_names(env: gym.Env) -> list[str]:
    """The names of an environment's Discrete actions, where it tells them as Atari's do; else their numbers.

    :param env: an environment; `get_action_meanings` of any of its wrappers tells the names
    """
    assert isinstance(env.action_space, spaces.Discrete)
    count = int(env.action_space.n)
    with suppress(AttributeError):
        names = [str(name) for name in env.get_wrapper_attr("get_action_meanings")()]
        if len(names) == count:
            return names
    return [f"action {index}" for index in range(count)]
