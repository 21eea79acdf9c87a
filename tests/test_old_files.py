"""Files that commit aa76460 wrote load and do the same: checkpoints, agents' zips, replay buffers.

tests/fixtures/aa76460/make.py wrote them, run by that commit's code:
git worktree add OLD aa76460; PYTHONPATH=OLD python tests/fixtures/aa76460/make.py FOLDER
"""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
from conftest import MovingSquare

from sb3_permakey import PermaKeyObservation, RecurrentDQN, RecurrentQRDQN
from sb3_permakey.keypoints import KeypointDetector, ReadoutConfig, checkpoint_metadata, load_checkpoint
from sb3_permakey.play.saved_agents import FrameAgent, load_agent

FOLDER = Path(__file__).parent / "fixtures" / "aa76460"
READINGS = json.loads((FOLDER / "readings.json").read_text())
AGENTS = {
    "recurrent-dqn": (RecurrentDQN, "permakey", READINGS["permakey"]["peaks"]),
    "recurrent-qrdqn": (RecurrentQRDQN, "transporter", {}),
}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The folder with the files, decompressed."""
    folder = tmp_path_factory.mktemp("aa76460")
    for path in FOLDER.glob("*.xz"):
        (folder / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
    return folder


@pytest.fixture(scope="module")
def expected(old):
    """What that commit made of its own files."""
    with np.load(old / "expected.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("name", "reading"), [(name, reading) for name, of in READINGS.items() for reading in of])
def test_checkpoints_give_the_same_keypoints(old, expected, name, reading, streaming):
    settings = {"device": "cpu", "precision": "float32", "streaming": streaming, **READINGS[name][reading]}
    found = KeypointDetector(old / f"{name}.safetensors", **settings).detect(expected["frames"][::3])
    for part, values in found._asdict().items():
        if values is None:
            assert f"{name}.{reading}.{part}" not in expected
        else:
            np.testing.assert_allclose(values, expected[f"{name}.{reading}.{part}"], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", READINGS)
def test_checkpoints_say_what_they_said(old, name):
    model = load_checkpoint(old / f"{name}.safetensors")
    assert checkpoint_metadata(old / f"{name}.safetensors") == {"game": "Squares"}
    assert model.for_detection_only == (name == "permakey")
    assert model.config.num_keypoints == {"permakey": 4, "transporter": 3}[name]


@pytest.mark.parametrize("name", AGENTS)
def test_agents_play_the_same(old, expected, name):
    algorithm, checkpoint, settings = AGENTS[name]
    player = FrameAgent(old / f"{name}.zip", old / f"{checkpoint}.safetensors")
    assert type(player.agent) is algorithm
    count = settings.get("num_keypoints", 3)
    wanted = ReadoutConfig(**{"readout": "pointnet", "num_keypoints": count, **settings})
    assert player.detector.readout == player.agent.observation_space.readout.completed(player.detector.model) == wanted
    starts, actions = expected[f"{name}.starts"], expected[f"{name}.actions"]
    assert len(np.unique(actions)) > 1
    for index, frame in enumerate(expected["frames"]):
        assert player.act(frame[None], starts[[index]]) == actions[index]
        # The LSTM's cells are as large as 8 here; with AVX2 alone one differs by .002.
        np.testing.assert_allclose(np.stack(player.state), expected[f"{name}.states"][index], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", AGENTS)
def test_agents_go_on_learning_from_their_buffers(old, expected, name):
    algorithm, checkpoint, settings = AGENTS[name]
    env = PermaKeyObservation(
        MovingSquare(), old / f"{checkpoint}.safetensors", device="cpu", precision="float32", **settings
    )
    agent = algorithm.load(old / f"{name}.zip", env=env, device="cpu")
    assert agent.num_timesteps == 100
    agent.load_replay_buffer(old / f"{name}-buffer.pkl")
    np.testing.assert_array_equal(agent.replay_buffer.rewards, expected[f"{name}.rewards"])
    before = agent._n_updates
    agent.learn(8, reset_num_timesteps=False)
    assert agent.num_timesteps == 108
    assert agent._n_updates > before
    assert load_agent(old / f"{name}.zip").num_timesteps == 100
