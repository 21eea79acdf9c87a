import json

import numpy as np
import pytest
from conftest import square_frames

from sb3_permakey.envs.atari import PREPROCESSING
from sb3_permakey.frames.store import FrameStore, FrameStoreError, write_store

DESCRIPTION = {"game": "MovingSquare", "preprocessing": PREPROCESSING}


def test_episodes_stay_whole_and_keep_their_places(tmp_path):
    lengths = [9, 5, 7, 11, 4, 6]
    episodes = [square_frames(length, seed=index) for index, length in enumerate(lengths)]
    store = write_store(tmp_path, episodes, (0.6, 0.2, 0.2), DESCRIPTION)
    assert {episode.split for episode in store.episodes} == {"train", "valid", "test"}
    assert sum(len(frames) for frames in store.splits.values()) == sum(lengths)
    for episode in store.episodes:
        stored = store.splits[episode.split][episode.start : episode.start + episode.length]
        np.testing.assert_array_equal(stored, episodes[episode.index])
    assert isinstance(store.splits["train"], np.memmap)


def test_shares_are_approached(tmp_path):
    episodes = [np.full((10, 84, 84, 3), index, np.uint8) for index in range(40)]
    store = write_store(tmp_path, episodes, (0.8, 0.1, 0.1), DESCRIPTION)
    assert [len(frames) for frames in store.splits.values()] == [320, 40, 40]


def test_every_split_gets_an_episode_however_few_there_are(tmp_path):
    store = write_store(tmp_path, [square_frames(5)] * 3, (0.9, 0.05, 0.05), DESCRIPTION)
    assert [len(frames) for frames in store.splits.values()] == [5, 5, 5]
    with pytest.raises(FrameStoreError, match="2 episode"):
        write_store(tmp_path, [square_frames(5)] * 2, (0.9, 0.05, 0.05), DESCRIPTION)


def test_frames_of_another_size_are_named(tmp_path):
    episodes = [np.zeros((5, 64, 64, 3), np.uint8)] * 3
    with pytest.raises(FrameStoreError, match="holds frames of 64x64 pixels, but keypoints are of 84x84"):
        write_store(tmp_path, episodes, (0.9, 0.05, 0.05), DESCRIPTION)


@pytest.mark.parametrize("key", ["game", "preprocessing", "episodes"])
def test_a_description_that_lacks_something_is_named(frame_store, key):
    description = {name: value for name, value in frame_store.description.items() if name != key}
    (frame_store.path / "frames.json").write_text(json.dumps(description))
    with pytest.raises(FrameStoreError, match=f"is not a whole frame store .'{key}'"):
        FrameStore(frame_store.path)


def test_missing_or_unfinished(tmp_path, frame_store):
    with pytest.raises(FrameStoreError, match="no finished frame store at"):
        FrameStore(tmp_path / "nowhere")
    (frame_store.path / "valid.npy").unlink()
    with pytest.raises(FrameStoreError, match="not a whole frame store"):
        FrameStore(frame_store.path)


def test_array_that_does_not_match_its_description(frame_store):
    np.save(frame_store.path / "test.npy", square_frames(3))
    with pytest.raises(FrameStoreError, match="but frames.json describes 8"):
        FrameStore(frame_store.path)


def test_of_another_version(frame_store):
    path = frame_store.path / "frames.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 9}))
    with pytest.raises(FrameStoreError, match="version 9"):
        FrameStore(frame_store.path)


def test_other_preprocessing_is_named(frame_store):
    frame_store.require_preprocessing(PREPROCESSING)
    with pytest.raises(FrameStoreError, match="other preprocessing: frame_skip is 4, not 5"):
        frame_store.require_preprocessing({**PREPROCESSING, "frame_skip": 5})
