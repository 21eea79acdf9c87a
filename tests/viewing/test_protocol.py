import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import CATCHING, NUM_KEYPOINTS
from PIL import Image

from sb3_permakey.viewing import pictures
from sb3_permakey.viewing.pictures import Display, Recording, side_picture
from sb3_permakey.viewing.protocol import as_json, display_of, settings_of

SIDE = {"checkpoint": "mspacman", "readout": "peaks", "num_keypoints": "", "surround_px": " "}


def picture(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_form_as_settings():
    form = {"game": "MsPacman", "env": "", "agent": " a.zip ", "distractor": "both", "seed": "7"}
    sides = [SIDE, {**SIDE, "num_keypoints": "12", "min_distance_px": "4.5", "surround_px": "18", "persistence": "2"}]
    settings = settings_of({**form, "sides": sides})
    assert (settings.environment.game, settings.environment.env) == ("MsPacman", None)
    assert (settings.agent, settings.distractor, settings.seed) == (Path("a.zip"), "both", 7)
    assert [side.checkpoint for side in settings.sides] == ["mspacman"] * 2
    readouts = [side.readout for side in settings.sides]
    assert [readout.readout for readout in readouts] == ["peaks", "peaks"]
    assert [readout.num_keypoints for readout in readouts] == [None, 12]
    assert [(readout.min_distance_px, readout.surround_px, readout.persistence) for readout in readouts] == [
        (5.0, None, None),
        (4.5, 18.0, 2.0),
    ]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"game": ""}, "give one of game, env, not none"),
        ({"env": CATCHING}, "give one of game, env, not game and env"),
        ({"game": 3}, "game must be text, not 3"),
        ({"sides": "mspacman"}, "sides must be a list"),
        ({"sides": [{"checkpoint": ""}]}, "name a checkpoint"),
        ({"sides": [{**SIDE, "num_keypoints": "3.5"}]}, "num_keypoints must be a whole number, not '3.5'"),
        ({"sides": [{**SIDE, "num_keypoints": "0"}]}, "num_keypoints must be from 1 to"),
        ({"sides": [{**SIDE, "min_distance_px": "far"}]}, "min_distance_px must be a number, not 'far'"),
        ({"sides": [{**SIDE, "readout": "guess"}]}, "readout must be one of pointnet, peaks"),
        ({"sides": [{**SIDE, "readout": "pointnet", "surround_px": "18"}]}, "surround_px is a setting of peaks alone"),
        ({"seed": "x"}, "seed must be a whole number, not 'x'"),
    ],
)
def test_a_form_that_cannot_be(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        settings_of({"game": "MsPacman", "sides": [SIDE], **changed})


def test_all_is_drawn_unless_it_is_switched_off():
    assert display_of({}) == Display()
    assert display_of({"windows": False, "maps": True}) == Display(windows=False)


def test_a_look_as_json(open_view, save_agent):
    from two_queries import TwoQueries

    session = open_view(agent=save_agent(policy_kwargs={"features_extractor_class": TwoQueries}))
    session.step("agent")
    look = json.loads(json.dumps(as_json(session, Display())))
    assert look["caption"] == f"episode 1, step 1, score 0, {session.look.action}"
    peaks, pointnet = look["sides"]
    assert [picture(side["picture"]).size for side in (peaks, pointnet)] == [(504, 504)] * 2
    assert [one["layer"] for one in peaks["maps"]] == [0, 1]
    assert picture(peaks["maps"][0]["picture"]).size == (252, 252)
    assert len(peaks["keypoints"]) == 3
    assert all(0 <= one["confidence"] <= 1 for one in peaks["keypoints"])
    assert [one["confidence"] for one in pointnet["keypoints"]] == [None] * NUM_KEYPOINTS
    assert len({one["color"] for one in pointnet["keypoints"]}) == NUM_KEYPOINTS
    assert len(look["agent"]["values"]) == len(look["agent"]["actions"]) == 3
    assert len(look["agent"]["attention"]) == len(look["agent"]["query_colors"]) == 2
    assert look["agent"]["colors"] == [one["color"] for one in peaks["keypoints"]]
    assert as_json(session, Display(maps=False))["sides"][0]["maps"] == []


def test_what_is_switched_off_is_not_drawn(open_view):
    look = open_view().look
    drawn = [np.asarray(side_picture(look, 0, Display(**{name: False}))) for name in ("windows", "identities", "boxes")]
    assert not np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[1], drawn[2])
    plain = np.asarray(side_picture(look, 0, Display(windows=False, identities=False)))
    # All that is left are the dots, each at its keypoint, in a frame whose pixels are squares of 6.
    frame = look.frame.repeat(6, axis=0).repeat(6, axis=1)
    changed = np.argwhere((plain != frame).any(axis=-1))
    places = 6 * ((look.sides[0].centers + 1) * 83 / 2 + 0.5)
    assert len(changed)
    assert np.abs(changed[:, None] - places[None]).max(axis=-1).min(axis=1).max() <= 6


def test_a_recording_is_an_animation_of_its_looks(open_view, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_RECORDED", 3)
    session, recording = open_view(), Recording()
    with pytest.raises(ValueError, match="nothing is recorded yet"):
        recording.gif()
    for _ in range(5):
        recording.add(session.step("random"), Display())
    assert recording.is_full
    animation = Image.open(io.BytesIO(recording.gif()))
    assert animation.n_frames == 3
    assert animation.size[0] > 2 * 336
