"""The picture of a score: frames with objects and keypoints, and bars of precision, recall and F1."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sb3_permakey.figures import GAP_PX, SCALE, draw_keypoints
from sb3_permakey.keypoints.layers import IMAGE_SIZE
from sb3_permakey.scores.ground_truth import FrameObjects
from sb3_permakey.scores.labelled import LabelledFrames, evenly_spread

COLUMNS = 6
OBJECT_COLOR = (255, 255, 255)
DISPLAY_COLOR = (150, 150, 150)
CHART_HEIGHT_PX = 300
CHARTED = ("precision", "recall", "f1", "precision_without_displays", "recall_without_displays", "f1_without_displays")
BAR_COLORS = {"keypoints": (31, 119, 180), "random": (190, 190, 190), "grid": (120, 120, 120)}
BAR_PX = 48
TEXT_COLOR = (0, 0, 0)


def draw_objects(picture: Image.Image, objects: FrameObjects, scale: int = SCALE) -> Image.Image:
    """Draw objects' boxes on an enlarged frame, white, displays grey; the same picture."""
    canvas = ImageDraw.Draw(picture)
    for (top, left, bottom, right), is_display in zip(objects.boxes * scale, objects.displays, strict=True):
        color = DISPLAY_COLOR if is_display else OBJECT_COLOR
        canvas.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=color)
    return picture


def score_picture(
    labelled: LabelledFrames, centers: np.ndarray, window_std: float, scores: dict[str, dict[str, Any]]
) -> np.ndarray:
    """Some of the frames with their objects and keypoints above bars of the scores.

    :param labelled: frames and objects
    :param centers: (N, K, 2), keypoints of the pairs' first frames
    :param window_std: width of the keypoints' windows
    :param scores: of "keypoints", "random" and "grid", each figure a dict of value, low and high
    :return: uint8 (height, width, 3)
    """
    tile = IMAGE_SIZE * SCALE + GAP_PX
    picture = Image.new("RGB", (COLUMNS * tile + GAP_PX, tile + CHART_HEIGHT_PX), (255, 255, 255))
    for position, index in enumerate(evenly_spread(len(labelled.frames), COLUMNS)):
        frame = labelled.frames[index, 0]
        drawn = draw_objects(draw_keypoints(frame, centers[index], window_std), labelled.objects[index][0])
        picture.paste(drawn, (GAP_PX + position * tile, GAP_PX))
    chart = _bar_chart(scores, COLUMNS * tile, CHART_HEIGHT_PX - GAP_PX)
    picture.paste(chart, (GAP_PX, tile + GAP_PX))
    return np.asarray(picture)


def _bar_chart(scores: dict[str, dict[str, Any]], width: int, height: int) -> Image.Image:
    """Bars from 0 to 1 with their intervals, a group for each figure."""
    chart = Image.new("RGB", (width, height), (255, 255, 255))
    canvas, font = ImageDraw.Draw(chart), ImageFont.load_default(16)
    top, bottom = 40, height - 30
    for tick in range(0, 11, 2):
        y = bottom - (bottom - top) * tick / 10
        canvas.line((40, y, width, y), fill=(225, 225, 225))
        canvas.text((34, y), f"{tick / 10:.1f}", fill=TEXT_COLOR, font=font, anchor="rm")
    for position, (name, color) in enumerate(BAR_COLORS.items()):
        canvas.rectangle((50 + 150 * position, 8, 66 + 150 * position, 24), fill=color)
        canvas.text((72 + 150 * position, 16), name, fill=TEXT_COLOR, font=font, anchor="lm")
    for group, figure in enumerate(CHARTED):
        left = 50 + (width - 50) * group // len(CHARTED)
        label = figure.replace("_without_displays", ", no displays").replace("f1", "F1")
        canvas.text((left, bottom + 16), label, fill=TEXT_COLOR, font=font, anchor="lm")
        for position, (name, color) in enumerate(BAR_COLORS.items()):
            values = scores[name][figure]
            if values["value"] is None:
                continue
            heights = {key: bottom - (bottom - top) * values[key] for key in ("value", "low", "high")}
            x = left + position * BAR_PX
            canvas.rectangle((x, heights["value"], x + BAR_PX - 6, bottom), fill=color)
            middle = x + (BAR_PX - 6) / 2
            canvas.line((middle, heights["low"], middle, heights["high"]), fill=TEXT_COLOR, width=2)
    return chart
