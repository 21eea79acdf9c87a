"""What the page sends, made into settings, and a look, made into what the page shows: both are JSON's types alone."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sb3_permakey.envs.named import NamedEnvironment
from sb3_permakey.figures import keypoint_colors, png_bytes
from sb3_permakey.keypoints import ReadoutConfig
from sb3_permakey.keypoints.readouts import readout_config
from sb3_permakey.viewing.pictures import Display, agent_picture, caption, map_pictures, side_picture
from sb3_permakey.viewing.session import Side, SideLook, ViewSession, ViewSettings

WHOLE_NUMBERS = ("num_keypoints", "seed")


def settings_of(form: Mapping[str, Any]) -> ViewSettings:
    """The settings that a form was filled in with; what is left empty is as if it were not there.

    :param form: "game" or "env", "sides", each with "checkpoint", "readout" and its settings, "distractor", "agent",
        "seed"
    :raises ValueError: for what cannot be, by one sentence that names the field
    """
    sides = form.get("sides")
    if not isinstance(sides, list) or not all(isinstance(side, Mapping) for side in sides):
        raise ValueError(f"sides must be a list of checkpoints with their readouts, not {sides!r}")
    agent = _text(form, "agent")
    seed = _number(form, "seed")
    return ViewSettings(
        environment=NamedEnvironment(_text(form, "game"), _text(form, "env")),
        sides=tuple(_side(side) for side in sides),
        distractor=_text(form, "distractor"),  # type: ignore[arg-type]  # checked there
        agent=None if agent is None else Path(agent),
        seed=0 if seed is None else int(seed),
    )


def _side(form: Mapping[str, Any]) -> Side:
    checkpoint, readout = _text(form, "checkpoint"), _text(form, "readout")
    if checkpoint is None:
        raise ValueError("name a checkpoint: a file, or one of those that `sb3-permakey checkpoints` lists")
    numbers = [one.name for one in fields(ReadoutConfig) if one.name != "readout"]
    given = {name: value for name in numbers if (value := _number(form, name)) is not None}
    return Side(checkpoint, readout_config(readout, given))  # type: ignore[arg-type]


def _text(form: Mapping[str, Any], name: str) -> str | None:
    value = form.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {value!r}")
    return (value or "").strip() or None


def _number(form: Mapping[str, Any], name: str) -> float | None:
    value = form.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    kind = int if name in WHOLE_NUMBERS else float
    try:
        return kind(value)
    except (TypeError, ValueError):
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} must be {what}, not {value!r}") from None


def display_of(form: Mapping[str, Any]) -> Display:
    """What is drawn: each of `Display`'s fields is on unless the form says false."""
    return Display(**{one.name: form.get(one.name) is not False for one in fields(Display)})


def as_json(session: ViewSession, display: Display) -> dict[str, Any]:
    """The session's present look, pictures as URLs of PNG data."""
    look = session.look
    return {
        "caption": caption(look),
        "is_over": look.is_over,
        "frame": _as_url(Image.fromarray(look.frame)),
        "objects": None if look.objects is None else len(look.objects.boxes),
        "sides": [_side_as_json(session, side, display) for side in range(len(look.sides))],
        "agent": _agent_as_json(session, display),
    }


def _side_as_json(session: ViewSession, side: int, display: Display) -> dict[str, Any]:
    look = session.look
    seen = look.sides[side]
    maps = map_pictures(session, side) if display.maps else {}
    return {
        "title": seen.title,
        "picture": _as_url(side_picture(look, side, display)),
        "maps": [{"layer": layer, "picture": _as_url(picture)} for layer, picture in maps.items()],
        "keypoints": _keypoints_as_json(seen),
        "scores": seen.scores,
    }


def _keypoints_as_json(seen: SideLook) -> list[dict[str, Any]]:
    colors = _colors(seen.centers)
    confidences = [None] * len(colors) if seen.confidence is None else seen.confidence.tolist()
    return [{"color": color, "confidence": confidence} for color, confidence in zip(colors, confidences, strict=True)]


def _agent_as_json(session: ViewSession, display: Display) -> dict[str, Any] | None:
    look = session.look
    if look.agent is None:
        return None
    agent = look.agent
    return {
        "picture": _as_url(agent_picture(look, agent, display)),
        "sees_keypoints": agent.centers is not None,
        "choice": agent.choice,
        "actions": session.action_names,
        "values": None if agent.values is None else agent.values.tolist(),
        "attention": None if agent.attention is None else agent.attention.tolist(),
        "colors": _colors(agent.centers),
        "query_colors": _colors(agent.attention),
    }


def _colors(of: np.ndarray | None) -> list[str]:
    """Their colours on the pictures, of keypoints or queries, as CSS has them."""
    return ["#{:02x}{:02x}{:02x}".format(*color) for color in keypoint_colors(0 if of is None else len(of))]


def _as_url(picture: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(picture)).decode()
