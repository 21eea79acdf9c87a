"""A look as pictures: each side's keypoints, error maps, what an agent looks at, and the recording of it all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from sb3_permakey.figures import draw_attention, enlarge, gif_bytes, heat, mark_keypoints, side_by_side
from sb3_permakey.play.evaluation import FRAMES_PER_SECOND
from sb3_permakey.scores.pictures import draw_objects
from sb3_permakey.viewing.session import AgentLook, Look, ViewSession

SIDE_SCALE, MAP_SCALE, RECORDED_SCALE = 6, 3, 4
"""Pixels of a picture for one of a frame; two maps are as wide as a side."""
MOST_RECORDED = 600
"""Steps of a recording, so that it fits into memory: about 0.3 MB each."""


@dataclass(frozen=True)
class Display:
    """What is drawn on the frames."""

    windows: bool = True
    """Rings where the keypoints' windows have fallen to 1/e."""
    identities: bool = True
    """Each keypoint's number, the same through an episode."""
    boxes: bool = True
    """The true objects, displays grey."""
    maps: bool = True
    """Error maps beside the frames."""


def side_picture(look: Look, side: int, display: Display, scale: int = SIDE_SCALE) -> Image.Image:
    """A frame as one side sees it."""
    seen, picture = look.sides[side], enlarge(look.frame, scale)
    if display.boxes and look.objects is not None:
        draw_objects(picture, look.objects, scale)
    window_std = seen.window_std if display.windows else None
    return mark_keypoints(picture, seen.centers, window_std, labels=_labels(seen.centers, display))


def map_pictures(session: ViewSession, side: int) -> dict[int, Image.Image]:
    """The present frame's error maps of a side, by layers."""
    return {layer: enlarge(heat(one), MAP_SCALE) for layer, one in session.error_maps(side).items()}


def agent_picture(look: Look, agent: AgentLook, display: Display, scale: int = SIDE_SCALE) -> Image.Image:
    """A frame as an agent sees it: with its keypoints, if it sees these, and where it looks, if its encoder tells."""
    if agent.centers is None:
        return enlarge(look.frame, scale)
    if agent.attention is None:
        picture = enlarge(look.frame, scale)
    else:
        picture = draw_attention(look.frame, agent.centers, agent.attention, scale)
    return mark_keypoints(picture, agent.centers, None, labels=_labels(agent.centers, display))


def caption(look: Look) -> str:
    """A look in a line."""
    action = f", {look.action}" if look.action is not None else ""
    end = ", episode over" if look.is_over else ""
    return f"episode {look.episode + 1}, step {look.step}, score {look.score:g}{action}{end}"


class Recording:
    """Steps as an animation, kept in few colours, so that many of them fit into memory."""

    def __init__(self) -> None:
        self.pictures: list[Image.Image] = []

    @property
    def is_full(self) -> bool:
        """Whether it takes no more steps."""
        return len(self.pictures) >= MOST_RECORDED

    def add(self, look: Look, display: Display) -> None:
        """Record a look, unless the recording is full."""
        if self.is_full:
            return
        sides = range(len(look.sides))
        pictures = [side_picture(look, side, display, RECORDED_SCALE) for side in sides]
        titles = [_title(look, side) for side in sides]
        if look.agent is not None and look.agent.attention is not None:
            pictures.append(agent_picture(look, look.agent, display, RECORDED_SCALE))
            titles.append("where the agent looks")
        sheet = side_by_side(pictures, titles, caption(look))
        self.pictures.append(sheet.quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))

    def gif(self) -> bytes:
        """The file's content, in the speed of play.

        :raises ValueError: when nothing was recorded
        """
        if not self.pictures:
            raise ValueError("nothing is recorded yet: press record, and step or play")
        return gif_bytes(self.pictures, FRAMES_PER_SECOND)


def _title(look: Look, side: int) -> str:
    scores = look.sides[side].scores
    return look.sides[side].title + (f", F1 {scores['f1']:.2f}" if scores else "")


def _labels(centers: np.ndarray, display: Display) -> list[str] | None:
    return [str(number) for number in range(len(centers))] if display.identities else None
