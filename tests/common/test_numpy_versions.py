import json
import zipfile

import numpy as np
import pytest
from stable_baselines3 import PPO

from sb3_permakey import RecurrentDQN
from sb3_permakey.common.numpy_versions import NumpyVersionError
from sb3_permakey.play.saved_agents import load_agent

UNREADABLE = "Y251bXB5Ll9jb3JlLm51bWVyaWNfZnV0dXJlCl9mcm9tYnVmZmVyCi4="
"""The pickle of a function in numpy._core.numeric_future, in base64."""


def rewritten(path, numpy, unreadable):
    """The file as another numpy would have saved it."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    note = content["system_info.txt"].decode().replace(f"Numpy: {np.__version__}", f"Numpy: {numpy}")
    data = json.loads(content["data"])
    if unreadable:
        data["observation_space"][":serialized:"] = UNREADABLE
    content |= {"system_info.txt": note.encode(), "data": json.dumps(data).encode()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in content.items():
            archive.writestr(name, values)


@pytest.fixture(params=[RecurrentDQN, PPO])
def saved(request, tmp_path):
    settings = {"buffer_size": 50} if request.param is RecurrentDQN else {"n_steps": 8, "batch_size": 8}
    policy = "MlpLstmPolicy" if request.param is RecurrentDQN else "MlpPolicy"
    request.param(policy, "CartPole-v1", **settings).save(tmp_path / "agent.zip")
    return tmp_path / "agent.zip"


NEWER = f"{int(np.__version__.split('.')[0]) + 1}.4.0"


def test_a_newer_numpy_is_named_with_ways_to_go_on(saved):
    rewritten(saved, NEWER, unreadable=True)
    with pytest.raises(NumpyVersionError) as raised:
        load_agent(saved)
    assert f"{saved} was saved under numpy {NEWER}, which numpy {np.__version__} cannot read" in str(raised.value)
    assert 'pip install "numpy>=2"' in str(raised.value)


def test_it_is_named_to_who_loads_with_the_class(saved):
    rewritten(saved, NEWER, unreadable=True)
    with pytest.raises((NumpyVersionError, ModuleNotFoundError)) as raised:
        RecurrentDQN.load(saved.with_suffix(""))
    assert raised.type is NumpyVersionError


def test_a_newer_numpys_file_that_can_be_read_is_loaded(saved):
    rewritten(saved, NEWER, unreadable=False)
    assert load_agent(saved).observation_space.shape == (4,)


def test_another_error_stays_what_it_is(saved):
    rewritten(saved, np.__version__, unreadable=True)
    with pytest.raises(ModuleNotFoundError, match="numeric_future"):
        load_agent(saved)
