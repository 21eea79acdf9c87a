import cv2
import numpy as np
import pytest
from gymnasium.wrappers import RecordVideo
from stable_baselines3.common.vec_env import DummyVecEnv, VecVideoRecorder

from sb3_permakey import PermaKeyObservation, VecPermaKeyObservation, make_atari_env

DOT_PX = 4


def make_game():
    return make_atari_env("MsPacman", seed=0, render_mode="rgb_array")


def require_dots(picture: np.ndarray, plain: np.ndarray, centers: np.ndarray) -> None:
    """The picture is the plain one at twice its size, but for a dot at each keypoint's place on it."""
    assert picture.shape == (420, 320, 3)
    changed = np.argwhere((picture != plain.repeat(2, axis=0).repeat(2, axis=1)).any(axis=-1))
    places = ((centers + 1) * 83 / 2 + 0.5) / 84 * (420, 320)
    distances = np.linalg.norm(changed[:, None] - places[None], axis=-1)
    assert distances.min(axis=1).max() <= DOT_PX + 2
    assert distances.min(axis=0).max() <= DOT_PX


def test_keypoints_are_drawn_on_the_emulators_picture(checkpoint):
    env = PermaKeyObservation(make_game(), checkpoint, render_keypoints=True)
    env.reset()
    for _ in range(3):
        observation, *_ = env.step(2)
        require_dots(env.render(), env.env.render(), observation["keypoints"])
    plain = PermaKeyObservation(make_game(), checkpoint)
    plain.reset()
    assert plain.render().shape == (210, 160, 3)


def test_where_the_environment_gives_no_picture_nothing_is_drawn(checkpoint, monkeypatch):
    env = PermaKeyObservation(make_game(), checkpoint, render_keypoints=True)
    env.reset()
    monkeypatch.setattr(env.env, "render", lambda: None)  # as with the render mode "human"
    assert env.render() is None


def test_an_environment_that_renders_nothing_is_refused(checkpoint):
    for wrapper, env in (
        (PermaKeyObservation, make_atari_env("MsPacman")),
        (VecPermaKeyObservation, DummyVecEnv([lambda: make_atari_env("MsPacman")])),
    ):
        with pytest.raises(ValueError, match='renders nothing: make it with render_mode="rgb_array"'):
            wrapper(env, checkpoint, render_keypoints=True)


def test_keypoints_are_drawn_on_the_pictures_of_vectorised_environments(checkpoint):
    venv = VecPermaKeyObservation(DummyVecEnv([make_game, make_game]), checkpoint, render_keypoints=True)
    observations = venv.reset()
    for picture, plain, centers in zip(
        venv.get_images(), venv.venv.get_images(), observations["keypoints"], strict=True
    ):
        require_dots(picture, plain, centers)
    observations, *_ = venv.step(np.array([2, 3]))
    require_dots(venv.get_images()[1], venv.venv.get_images()[1], observations["keypoints"][1])
    assert venv.render().shape[0] in (420, 840)  # side by side, or one below the other
    plain = VecPermaKeyObservation(venv.venv, checkpoint)
    assert [picture.shape for picture in plain.get_images()] == [(210, 160, 3)] * 2
    assert np.array_equal(plain.render(), venv.venv.render())


def test_videos_of_keypoints(checkpoint, tmp_path):
    pytest.importorskip("moviepy")
    env = PermaKeyObservation(make_game(), checkpoint, render_keypoints=True)
    env = RecordVideo(env, str(tmp_path / "one"), episode_trigger=lambda _: True, disable_logger=True)
    env.reset()
    for _ in range(4):
        env.step(2)
    env.close()
    venv = VecPermaKeyObservation(DummyVecEnv([make_game]), checkpoint, render_keypoints=True)
    venv = VecVideoRecorder(venv, str(tmp_path / "many"), record_video_trigger=lambda step: step == 0, video_length=4)
    venv.reset()
    for _ in range(4):
        venv.step(np.array([2]))
    venv.close()
    for folder, frames in (("one", 5), ("many", 5)):
        (path,) = (tmp_path / folder).glob("*.mp4")
        video = cv2.VideoCapture(str(path))
        assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (320, 420)
        assert video.get(cv2.CAP_PROP_FRAME_COUNT) == frames
        assert video.get(cv2.CAP_PROP_FPS) == 15
        video.release()
