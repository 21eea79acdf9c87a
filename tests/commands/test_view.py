import sys

import pytest

from sb3_permakey import cli
from sb3_permakey.commands.view import ViewConfig, choices, run
from sb3_permakey.envs.atari import UnknownGameError

server = pytest.importorskip("sb3_permakey.viewing.server")


def test_what_can_be_chosen():
    offered = choices(ViewConfig(game="ms_pacman", checkpoint=("mspacman", "mspacman-transporter")))
    assert {"MsPacman", "Seaquest"} <= set(offered["games"])
    assert offered["readouts"][:2] == ["pointnet", "peaks"]
    assert offered["distractors"] == ["horizontal", "vertical", "both"]
    assert {"name": "seaquest-noisy", "game": "Seaquest", "method": "distilled", "noise": "both"} in offered[
        "checkpoints"
    ]
    checkpoints = ["mspacman", "mspacman-transporter"]
    assert offered["first"] == {"game": "MsPacman", "env": None, "checkpoints": checkpoints, "agent": None}
    assert choices(ViewConfig())["first"]["game"] == "MsPacman"
    assert choices(ViewConfig(env="mine:make"))["first"]["game"] is None


def test_wrong_settings():
    for settings, sentence in (
        ({"game": "Pong", "env": "mine:make"}, "give one of game, env, not game and env"),
        ({"checkpoint": ("a", "b", "c")}, "checkpoints must be from 0 to 2, not 3"),
        ({"port": 70_000}, "port must be from 0 to 65535, not 70000"),
    ):
        with pytest.raises(ValueError, match=sentence):
            ViewConfig(**settings)
    with pytest.raises(UnknownGameError, match="the nearest name is 'MsPacman'"):
        choices(ViewConfig(game="MsPackman"))


def test_the_command_says_where_the_page_is(monkeypatch, capsys):
    served = []
    monkeypatch.setattr(server, "serve", lambda app, listener: served.append(listener.getsockname()))
    cli.main(["view", "--port", "0"])
    ((address, port),) = served
    assert address == "127.0.0.1"
    assert capsys.readouterr().out == f"http://127.0.0.1:{port}/ in a browser shows the page; Ctrl-C ends it\n"


def test_all_of_the_network_is_warned_of(monkeypatch, capsys):
    monkeypatch.setattr(server, "serve", lambda app, listener: None)
    cli.main(["view", "--port", "0", "--host", "0.0.0.0"])
    assert "everybody on this machine's network can open files and run code" in capsys.readouterr().out
    assert server.allowed_hosts("0.0.0.0") == ["*"]


def test_without_the_extra_the_command_to_install_it_is_told(monkeypatch):
    monkeypatch.delitem(sys.modules, "sb3_permakey.viewing.server")
    monkeypatch.delattr("sb3_permakey.viewing.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r"the page needs starlette and uvicorn: pip install .*\[view\]"):
        run(ViewConfig())
