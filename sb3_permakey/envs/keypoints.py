"""Keypoints as observations: a gymnasium wrapper and a wrapper of SB3's vectorised environments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_permakey.envs.atari import plain_game_name
from sb3_permakey.envs.episode_ends import LAST, ended_and_told
from sb3_permakey.envs.keypoint_space import FRAME_SHAPE, KeypointSpace
from sb3_permakey.envs.wrapping import require_environment, require_rendering, require_vectorised
from sb3_permakey.figures import draw_keypoints
from sb3_permakey.keypoints import KeypointDetector, KeypointModel, warn_of_another_game
from sb3_permakey.keypoints.detector import DetectorSettings
from sb3_permakey.keypoints.motion import KeypointMotion

if TYPE_CHECKING:
    from typing_extensions import Unpack


RENDER_SCALE = 2
"""Pixels of a rendered picture with keypoints for one of the environment's own."""


def require_frames(space: spaces.Space) -> None:
    """Raise ValueError unless the observations are uint8 frames (84, 84, 3)."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or space.shape != FRAME_SHAPE:
        raise ValueError(
            f"keypoints need observations of Box uint8 {FRAME_SHAPE}, but the environment has {space}: "
            "gymnasium's AddRenderObservation and ResizeObservation can make them, and sb3_permakey's ResizeFrames and "
            "VecResizeFrames, of gray ones with repeat_gray=True"
        )


class KeypointObserver:
    """Turns the frames of one or several environments into observations; peaks keep their identities in an episode.

    :param detector: makes the keypoints
    :param keep_image: with an "image" entry
    :param history: how many displacements of each keypoint are in the entry "motion"; 0: no such entry
    :raises ValueError: for a history that is no number of steps
    """

    def __init__(self, detector: KeypointDetector, *, keep_image: bool, history: int = 0) -> None:
        if isinstance(history, bool) or not isinstance(history, int | np.integer) or history < 0:
            raise ValueError(f"history must be a whole number of steps, 0 or more, not {history!r}")
        self.detector = detector
        self.keep_image = keep_image
        self.tracker = detector.tracker()
        self.motion = KeypointMotion(int(history)) if history else None

    def observe(
        self, frames: np.ndarray, episode_starts: Sequence[bool] | np.ndarray, rows: Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Observations: "keypoints" (B, K, 2), "features" (B, K, C), of peaks "confidence" (B, K).

        With a history of n also "motion" (B, K, 2n), with `keep_image` "image".

        :param frames: uint8 (B, 84, 84, 3); those of one environment in the order of time
        :param episode_starts: (B,), True where the frame is an episode's first
        :param rows: (B,), which environment each frame comes from; None: frame i from environment i
        """
        keypoints = self.detector.candidates(frames)
        if self.tracker is not None:
            keypoints = self.tracker.track(keypoints, episode_starts, rows)
        observations = {"keypoints": keypoints.centers, "features": keypoints.features}
        if keypoints.confidence is not None:
            observations["confidence"] = keypoints.confidence
        if self.motion is not None:
            observations["motion"] = self.motion.observe(keypoints.centers, episode_starts, rows)
        if self.keep_image:
            observations["image"] = frames
        return observations

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the environments alone, numbered anew from 0."""
        for part in (self.tracker, self.motion):
            if part is not None:
                part.keep(rows)

    def space(self) -> KeypointSpace:
        """The observations' space."""
        return KeypointSpace(self.detector, self.keep_image, self.motion.history if self.motion else 0)


def make_observer(
    space: spaces.Space,
    model_or_path: KeypointModel | str | Path,
    *,
    keep_image: bool,
    history: int,
    streaming: bool,
    **detector: Unpack[DetectorSettings],
) -> KeypointObserver:
    """What makes an environment's observations.

    :param space: the environment's observation space
    :param model_or_path: a keypoint model or the path of a checkpoint
    :param keep_image: with an "image" entry
    :param history: how many displacements of each keypoint are in the entry "motion"; 0: no such entry
    :param streaming: whether the detector streams
    :param detector: what `KeypointDetector` takes beside
    :raises ValueError: when the observations are not uint8 frames (84, 84, 3), the history is no number of steps, or
        the model cannot be read as wanted
    :raises CheckpointError: when the checkpoint is missing, broken or for other image channels
    """
    require_frames(space)
    made_by = KeypointDetector(model_or_path, streaming=streaming, **detector)
    made_by.check_channels(FRAME_SHAPE[-1])
    return KeypointObserver(made_by, keep_image=keep_image, history=history)


class PermaKeyObservation(gym.ObservationWrapper):
    """Agents see keypoints instead of pixels.

    Observations are a Dict: "keypoints" float32 (K, 2), (y, x) in [-1, 1]; "features" float32 (K, C); with `keep_image`
    also "image" uint8 (84, 84, 3); with the readout "peaks" also "confidence" float32 (K,) in [0, 1], the height of the
    peak; with a history of n also "motion" float32 (K, 2n), how each keypoint moved in the last n steps in the same
    units, newest first: (dy, dx) of the last step, of the one before it, and so on, zeros before an episode's start and
    where a keypoint jumped to another object. Peaks start an episode in the order of their heights; from then on each
    keeps its place in the order as it moves.

    :param env: an environment with uint8 observations (84, 84, 3)
    :param model_or_path: a keypoint model or the path of a checkpoint
    :param keep_image: keep the pixels beside the keypoints; `KeypointCNN` needs them
    :param history: how many of its last displacements each keypoint carries in "motion"; 0: no such entry
    :param streaming: compute only what was never seen before, on a CPU; the numbers are the same within rounding
    :param render_keypoints: whether `render` draws the keypoints on the environment's own picture, at twice its size
    :param detector: what `KeypointDetector` takes beside: device, precision, readout ("pointnet", "peaks" or a
        `ReadoutConfig`) and, as keywords too, the fields of that
    :raises ValueError: when the environment has other observations, or renders nothing where keypoints are to be drawn,
        the history is no number of steps, or the model cannot be read as wanted
    :raises CheckpointError: when the checkpoint is missing, broken or for other image channels
    """

    def __init__(
        self,
        env: gym.Env,
        model_or_path: KeypointModel | str | Path,
        *,
        keep_image: bool = False,
        history: int = 0,
        streaming: bool = True,
        render_keypoints: bool = False,
        **detector: Unpack[DetectorSettings],
    ) -> None:
        require_environment(env, "PermaKeyObservation", "VecPermaKeyObservation")
        if render_keypoints:
            require_rendering(env, "render_keypoints")
        spec = env.unwrapped.spec
        if spec is not None and spec.namespace == "ALE" and not isinstance(model_or_path, KeypointModel):
            warn_of_another_game(model_or_path, plain_game_name(spec.id))
        super().__init__(env)
        self.observer = make_observer(
            env.observation_space,
            model_or_path,
            keep_image=keep_image,
            history=history,
            streaming=streaming,
            **detector,
        )
        self.detector = self.observer.detector
        self.observation_space = self.observer.space()
        self._episode_starts = True
        self.render_keypoints, self._centers = render_keypoints, np.zeros((0, 2))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; keypoints of its first frame."""
        self._episode_starts = True
        return super().reset(seed=seed, options=options)

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """Keypoints of one frame."""
        batch = self.observer.observe(observation[None], [self._episode_starts])
        self._episode_starts = False
        self._centers = batch["keypoints"][0]
        return {name: values[0] for name, values in batch.items()}

    def render(self) -> Any:
        """The environment's own picture; with `render_keypoints` twice its size, with the keypoints on it."""
        picture = super().render()
        return drawn(picture, self._centers) if self.render_keypoints else picture


class VecPermaKeyObservation(VecEnvWrapper):
    """`PermaKeyObservation` for SB3's vectorised environments: one batch for all of them.

    The "terminal_observation" of finished episodes is converted in the same batch.

    :param venv: vectorised environment with uint8 observations (84, 84, 3)
    :param model_or_path: this and all that follows as in `PermaKeyObservation`
    :raises ValueError: as there
    :raises CheckpointError: as there
    """

    def __init__(
        self,
        venv: VecEnv,
        model_or_path: KeypointModel | str | Path,
        *,
        keep_image: bool = False,
        history: int = 0,
        streaming: bool = True,
        render_keypoints: bool = False,
        **detector: Unpack[DetectorSettings],
    ) -> None:
        require_vectorised(venv, "VecPermaKeyObservation", "PermaKeyObservation")
        if render_keypoints:
            require_rendering(venv, "render_keypoints")
        self.observer = make_observer(
            venv.observation_space,
            model_or_path,
            keep_image=keep_image,
            history=history,
            streaming=streaming,
            **detector,
        )
        self.detector = self.observer.detector
        super().__init__(venv, observation_space=self.observer.space())
        self.render_keypoints, self._centers = render_keypoints, np.zeros((self.num_envs, 0, 2))

    def reset(self) -> VecEnvObs:
        """Reset all environments; keypoints of their first frames."""
        frames: Any = self.venv.reset()
        observations = self.observer.observe(frames, [True] * self.num_envs)
        self._centers = observations["keypoints"]
        return observations

    def get_images(self) -> Sequence[np.ndarray | None]:
        """The environments' own pictures; with `render_keypoints` twice their size, with the keypoints on them."""
        pictures = super().get_images()
        if not self.render_keypoints:
            return pictures
        return [drawn(picture, centers) for picture, centers in zip(pictures, self._centers, strict=True)]

    def render(self, mode: str | None = None) -> np.ndarray | None:
        """All environments' pictures as one."""
        # A wrapper's own asks the environments below, past `get_images`.
        return VecEnv.render(self, mode) if self.render_keypoints else super().render(mode)

    def step_wait(self) -> VecEnvStepReturn:
        """Finish the step; keypoints of the new frames and of the last frames of finished episodes."""
        frames: Any
        frames, rewards, dones, infos = self.venv.step_wait()
        finished = ended_and_told(dones, infos)
        last_frames = [infos[index][LAST] for index in finished]
        batch = self.observer.observe(
            np.concatenate([np.stack(last_frames), frames]) if finished else frames,
            episode_starts=[False] * len(finished) + np.asarray(dones, dtype=bool).tolist(),
            rows=[*finished, *range(self.num_envs)],
        )
        for row, index in enumerate(finished):
            infos[index][LAST] = {name: values[row] for name, values in batch.items()}
        observations = {name: values[len(finished) :] for name, values in batch.items()}
        self._centers = observations["keypoints"]
        return observations, rewards, dones, infos


def drawn(picture: Any, centers: np.ndarray) -> Any:
    """An environment's picture uint8 (H, W, 3) at twice its size, with keypoints (K, 2) on it; else what it gave."""
    if not isinstance(picture, np.ndarray) or picture.ndim != 3:
        return picture
    return np.asarray(draw_keypoints(picture, centers, None, RENDER_SCALE))
