import pytest

import sb3_permakey.pretraining as pretraining
from sb3_permakey.commands.pretrain import pretrain
from sb3_permakey.play.collect import CollectConfig, collect
from sb3_permakey.play.own_environments import record_frames


def test_names_that_users_type_come_from_where_they_are():
    there = {name: getattr(pretraining, name) for name in pretraining.__all__}
    elsewhere = {
        "CollectConfig": CollectConfig,
        "collect": collect,
        "pretrain": pretrain,
        "record_frames": record_frames,
    }
    assert {name: there[name] for name in elsewhere} == elsewhere
    assert set(there) - set(elsewhere) == {"PretrainConfig", "StrongPretrainConfig"}


def test_a_name_that_is_not_there():
    with pytest.raises(ImportError, match="cannot import name 'pretrian'"):
        from sb3_permakey.pretraining import pretrian  # noqa: F401
