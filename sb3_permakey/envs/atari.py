"""The one Atari preprocessing that data collection, training and evaluation share."""

from __future__ import annotations

import difflib
import re
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, TimeLimit
from stable_baselines3.common.atari_wrappers import ClipRewardEnv, EpisodicLifeEnv, FireResetEnv
from stable_baselines3.common.monitor import Monitor

from sb3_permakey.envs.distractors import DistractorBars, DistractorKind
from sb3_permakey.envs.game_over import OVER, EndWhenOver
from sb3_permakey.extras import missing_package

PREPROCESSING: dict[str, Any] = {"screen_size": 84, "frame_skip": 4, "noop_max": 30, "grayscale_obs": False}
"""How emulator frames become observations; frame stores name it, so that other frames are not mixed in."""
EMULATOR_FPS = 60
WAIT_FOR_FIRE = {"Breakout": 0, "DonkeyKong": 0, "Gopher": 32}
"""Games in which nothing happens after a lost life until FIRE is pressed; agent steps before they hear it."""
VARIANT = re.compile(r"-?(ram)?(deterministic|noframeskip)?-v\d+$")
"""What ids of other versions add to a game's name in small letters, as "PongNoFrameskip-v4" does."""


class UnknownGameError(ValueError):
    """A name that no Atari game has."""


class LifeEpisodes(EpisodicLifeEnv):
    """SB3's EpisodicLifeEnv, where a reset with a seed begins the seed's game, whatever life the last one is in."""

    def reset(self, **kwargs) -> tuple[np.ndarray, dict[str, Any]]:
        """Go on with the next life, or begin a game."""
        self.was_real_done = self.was_real_done or kwargs.get("seed") is not None
        return super().reset(**kwargs)


class FireReset(FireResetEnv):
    """SB3's FireResetEnv, whose reset also keeps the info that belongs to the observation.

    :param env: an Atari game whose second action is FIRE
    :param wait: steps before the game hears it
    """

    def __init__(self, env: gym.Env, wait: int = 0) -> None:
        super().__init__(env)
        self.wait = wait

    def reset(self, **kwargs) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the environment and press FIRE and the action after it."""
        observation, info = self.env.reset(**kwargs)
        for action in (*[0] * self.wait, 1, 2):
            observation, _, terminated, truncated, info = self.env.step(action)
            if terminated or truncated:
                observation, info = self.env.reset(**kwargs)
        return observation, info


class FireAfterLostLife(gym.Wrapper):
    """Presses FIRE after each lost life, so that a policy which never learned to do so does not stand still.

    While training, a lost life ends an episode, and the reset presses it.

    :param env: an Atari game whose second action is FIRE
    :param wait: steps before the game hears it
    """

    def __init__(self, env: gym.Env, wait: int) -> None:
        super().__init__(env)
        self.wait = wait
        self.lives = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the environment."""
        observation, info = self.env.reset(**kwargs)
        self.lives = info["lives"]
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; where it costs a life, press FIRE as well."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        presses = [*[0] * self.wait, 1] if info["lives"] < self.lives else []
        for press in presses:
            if terminated or truncated:
                break
            observation, more, terminated, truncated, info = self.env.step(press)
            reward = float(reward) + float(more)
        self.lives = info["lives"]
        return observation, reward, terminated, truncated, info


def plain_game_name(game: str) -> str:
    """A game's name without what its gymnasium id adds: "MsPacman" of "ALE/MsPacman-v5"."""
    return game.removeprefix("ALE/").removesuffix("-v5")


def atari_games() -> list[str]:
    """The names of all Atari games.

    :raises ImportError: when ale-py is not installed
    """
    try:
        import ale_py
    except ImportError as error:
        raise missing_package("Atari games need ale-py", "atari") from error
    gym.register_envs(ale_py)
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    return sorted(spec.name for spec in gym.registry.values() if spec.namespace == "ALE" and spec.version == 5)


def atari_env_id(game: str) -> str:
    """The gymnasium id of a game.

    :param game: "MsPacman" or "ALE/MsPacman-v5"; capital letters and underscores make no difference
    :raises UnknownGameError: when there is no such game, with the nearest name
    :raises ImportError: when ale-py is not installed
    """
    by_lower_case = {known.lower(): known for known in atari_games()}
    name = plain_game_name(game).lower().replace("_", "")
    if name not in by_lower_case:
        name = VARIANT.sub("", name)
        if name not in by_lower_case and game in gym.registry:
            raise UnknownGameError(
                f"{game} is not an Atari game: commands take other environments as env instead of game, and "
                "sb3_permakey.pretraining.record_frames(env, folder) records their frames in Python"
            )
        nearest = difflib.get_close_matches(name, by_lower_case, n=1, cutoff=0.0)
        raise UnknownGameError(f"unknown Atari game {game!r}; the nearest name is {by_lower_case[nearest[0]]!r}")
    return f"ALE/{by_lower_case[name]}-v5"


def make_atari_env(
    game: str,
    *,
    seed: int | None = None,
    training: bool = True,
    sticky: float = 0.0,
    distractor: DistractorKind | None = None,
    max_steps: int | None = None,
    render_mode: Literal["human", "rgb_array"] | None = None,
) -> gym.Env:
    """An Atari game with RGB observations, uint8 (84, 84, 3).

    Frame skip 4 with the maximum over the last two frames, up to 30 no-ops after a reset (none where a game has no such
    action), and a press of FIRE where the game waits for it. While training, a lost life ends an episode (the game
    itself goes on at the next reset) and rewards are clipped to -1, 0 and 1; SB3's Monitor below these two records
    whole games and full scores, so that an agent can be tested on what it learned from: `evaluate_policy` counts the
    Monitor's games. A game that is over though the emulator goes on (Frostbite's last life frozen) ends, see
    `sb3_permakey.envs.game_over`.

    Distractor bars (section 5's noisy Atari) are drawn on the frame before anything else sees it, and the info of every
    reset and step names their place, see `DistractorBars`. The game itself and its seeds are the same with and without.

    :param game: "MsPacman" or "ALE/MsPacman-v5"
    :param seed: seed of the first reset and of the action space
    :param training: lost lives end episodes, rewards are clipped
    :param sticky: probability that an action is repeated by the emulator
    :param distractor: bars of noisy Atari: "horizontal", "vertical" or "both"; None: none
    :param max_steps: agent steps after which a game is cut short; None: the emulator's 27,000 (half an hour)
    :param render_mode: what `render` shows, the emulator's whole picture: "rgb_array" for videos, or "human"
    :raises UnknownGameError: when there is no such game, with the nearest name
    :raises ValueError: for another kind of distractor or render mode
    """
    if render_mode not in (None, "human", "rgb_array"):
        raise ValueError(f"render_mode must be 'human', 'rgb_array' or None, not {render_mode!r}")
    env_id = atari_env_id(game)
    env: gym.Env = gym.make(env_id, frameskip=1, repeat_action_probability=sticky, render_mode=render_mode)
    meanings, name = env.get_wrapper_attr("get_action_meanings")(), plain_game_name(env_id)
    no_ops = PREPROCESSING if meanings[0] == "NOOP" else {**PREPROCESSING, "noop_max": 0}
    env = AtariPreprocessing(env, terminal_on_life_loss=False, **no_ops)
    env.metadata = {**env.metadata, "render_fps": EMULATOR_FPS // PREPROCESSING["frame_skip"]}
    over = OVER.get(name)
    if over is not None:
        env = EndWhenOver(env, over)
    if max_steps is not None:
        env = TimeLimit(env, max_steps)
    if distractor is not None:
        env = DistractorBars(env, distractor)
    env = Monitor(env)
    if training:
        env = LifeEpisodes(env)
    if meanings[1] == "FIRE":
        env = FireReset(env, WAIT_FOR_FIRE.get(name, 0))
        if not training and name in WAIT_FOR_FIRE:
            env = FireAfterLostLife(env, WAIT_FOR_FIRE[name])
    if training:
        env = ClipRewardEnv(env)
    if seed is not None:
        env.reset(seed=seed)
        env.action_space.seed(seed)
    return env
