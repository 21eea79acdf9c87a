import json
import re
from dataclasses import fields

import pytest
from conftest import CATCHING

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from running_page import RunningPage

from sb3_permakey.commands.view import ViewConfig
from sb3_permakey.keypoints import ReadoutConfig
from sb3_permakey.viewing import server


@pytest.fixture
def asked(toys):
    page = RunningPage(ViewConfig(env=CATCHING))
    yield page
    page.close()


def test_a_page_is_opened_stepped_recorded_and_reset(asked, checkpoint):
    opened = asked.ask("open", env=CATCHING, sides=[{"checkpoint": str(checkpoint)}], maps=False)
    assert opened["caption"] == "episode 1, step 0, score 0"
    assert opened["actions"] == ["action 0", "action 1", "action 2"]
    assert "no true boxes" in opened["notes"][0]
    of = {"id": opened["id"]}
    assert asked.ask("record", **of, on=True)["recorded"] == 1
    step = asked.ask("step", **of, player="keys", keys=["1"])
    assert (step["caption"], step["recorded"]) == ("episode 1, step 1, score 0, action 1", 2)
    assert asked.ask("record", **of, on=False)["records"] is False
    assert asked.ask("step", **of)["recorded"] == 2
    status, content = asked.post("gif", **of)
    assert (status, content[:6]) == (200, b"GIF89a")
    assert asked.ask("reset", **of)["sides"][0]["picture"] == opened["sides"][0]["picture"]
    assert asked.ask("draw", **of, windows=False)["sides"][0]["picture"] != opened["sides"][0]["picture"]


def test_what_goes_wrong_is_one_sentence(asked, checkpoint, monkeypatch, capsys):
    sides = [{"checkpoint": str(checkpoint)}]
    wrong = asked.ask("open", game="MsPackman", sides=sides)
    assert (wrong["status"], wrong["error"]) == (
        400,
        "unknown Atari game 'MsPackman'; the nearest name is 'MsPacman'",
    )
    assert asked.ask("step", id="none")["error"] == "this page's session has been closed: open it again"
    assert asked.ask("gif", id="none")["status"] == 400
    assert asked.ask("dance")["status"] == 404
    of = {"id": asked.ask("open", env=CATCHING, sides=sides)["id"]}

    def fail(self, action):
        raise RuntimeError("out of\n balls")

    import catching

    monkeypatch.setattr(catching.Catching, "step", fail)
    failed = asked.ask("step", **of)
    assert (failed["status"], failed["error"]) == (500, "RuntimeError: out of balls; the terminal shows where")
    assert "Traceback" in capsys.readouterr().err


def test_other_pages_on_the_web_are_not_answered(asked):
    assert asked.get("choices", Host="evil.example")[0] == 400
    assert asked.get("choices", Host="localhost")[0] == 200
    status, content = asked.post("open", kind="text/plain", env=CATCHING)
    assert (status, json.loads(content)["error"]) == (400, "only application/json is taken")


def test_the_page_names_nothing_elsewhere(asked):
    for name in ("", "page.css", "page.js", "icon.svg"):
        status, content = asked.get(name)
        assert status == 200
        assert re.findall(rb"//\w[^\s\"]*", content) in ([], [b"//www.w3.org/2000/svg"])  # the icon's name space


def test_the_page_has_a_field_for_each_setting_of_a_readout(asked):
    _, content = asked.get("")
    template = content.decode().split('<template id="side">')[1].split("</template>")[0]
    named = re.findall(r'name="(\w+)"', template)
    assert named == ["checkpoint", *(field.name for field in fields(ReadoutConfig))]


def test_idle_sessions_are_closed(asked, checkpoint, monkeypatch):
    monkeypatch.setattr(server, "MOST_OPEN", 2)
    form = {"env": CATCHING, "sides": [{"checkpoint": str(checkpoint)}]}
    first, second = (asked.ask("open", **form)["id"] for _ in range(2))
    assert asked.ask("draw", id=first)["status"] == 200
    third = asked.ask("open", **form)["id"]
    assert [asked.ask("draw", id=name)["status"] for name in (first, second, third)] == [200, 400, 200]
    fourth = asked.ask("open", **form, replaces=third)["id"]
    assert [asked.ask("draw", id=name)["status"] for name in (first, third, fourth)] == [200, 400, 200]


def test_a_port_that_is_taken_is_told(asked):
    port = asked.listener.getsockname()[1]
    with pytest.raises(OSError, match=f"could not listen on 127.0.0.1:{port}: .*; give another --port"):
        server.listening_socket("127.0.0.1", port)
