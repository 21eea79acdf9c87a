"""Pictures of keypoints: overlays, error maps, animations."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sb3_permakey.extras import missing_package
from sb3_permakey.files import atomic_path, write_atomically
from sb3_permakey.keypoints import KeypointDetector
from sb3_permakey.keypoints.layers import IMAGE_SIZE
from sb3_permakey.keypoints.peaks import KeypointTracker

SCALE = 3
"""Pixels of a picture for one pixel of a frame."""
GAP_PX = 6
LABEL_PX = 110
DOT_RADIUS_PX = 4
ATTENTION_RADIUS_PX = 12
"""Of a frame's pixels, where all queries look at one keypoint alone."""
OPACITY = 170

Color = tuple[int, int, int]
Row = tuple[str, Sequence[Image.Image]]
"""A row of a panel: its label and its pictures, all enlarged frames."""


def keypoint_colors(count: int) -> list[Color]:
    """Colours that tell keypoints apart, RGB."""
    hues = (index / count for index in range(count))
    return [tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.9, 1.0)) for hue in hues]  # type: ignore[misc]


def draw_keypoints(
    frame: np.ndarray,
    centers: np.ndarray,
    window_std: float | None,
    scale: int = SCALE,
    colors: Sequence[Color] | None = None,
) -> Image.Image:
    """A frame enlarged, with a dot at each keypoint and a ring where its window has fallen to 1/e.

    :param frame: uint8 (84, 84, 3)
    :param centers: (K, 2), (y, x) in [-1, 1]
    :param window_std: width of the windows in the same coordinates; None draws no rings
    :param scale: enlargement
    :param colors: of the K keypoints; None makes them all different
    """
    picture = enlarge(frame, scale)
    canvas = ImageDraw.Draw(picture)
    for (y, x), color in zip(centers, colors or keypoint_colors(len(centers)), strict=True):
        row, column = (scale * ((place + 1) * (IMAGE_SIZE - 1) / 2 + 0.5) for place in (y, x))
        if window_std is not None:
            radius = window_std * (IMAGE_SIZE - 1) / 2 * scale
            canvas.ellipse(_box(column, row, radius), outline=color, width=2)
        canvas.ellipse(_box(column, row, DOT_RADIUS_PX), fill=color, outline=(0, 0, 0))
    return picture


def draw_attention(frame: np.ndarray, centers: np.ndarray, weights: np.ndarray, scale: int = SCALE) -> Image.Image:
    """A frame enlarged, with a disc at each keypoint, as large as what looks at it, a slice of it for each query.

    :param frame: uint8 (84, 84, 3)
    :param centers: (K, 2), (y, x) in [-1, 1]
    :param weights: (queries, K), those of each query sum to 1
    :param scale: enlargement
    """
    picture = enlarge(frame, scale).convert("RGBA")
    over = Image.new("RGBA", picture.size)
    canvas = ImageDraw.Draw(over)
    colors = keypoint_colors(len(weights))
    for (y, x), parts in sorted(zip(centers, weights.T, strict=True), key=lambda one: -one[1].sum()):
        row, column = (scale * ((place + 1) * (IMAGE_SIZE - 1) / 2 + 0.5) for place in (y, x))
        radius = scale * ATTENTION_RADIUS_PX * (parts.sum() / len(parts)) ** 0.5
        if radius >= 1:
            ends = 360 * np.cumsum(parts) / parts.sum()
            for start, end, color in zip([0, *ends[:-1]], ends, colors, strict=True):
                canvas.pieslice(_box(column, row, radius), start, end, fill=(*color, OPACITY))
        canvas.ellipse(_box(column, row, 1), fill=(255, 255, 255, 255))
    return Image.alpha_composite(picture, over).convert("RGB")


def enlarge(frame: np.ndarray, scale: int = SCALE) -> Image.Image:
    """A frame uint8 (H, W, 3) with each pixel a square of `scale` pixels."""
    return Image.fromarray(frame).resize((frame.shape[1] * scale, frame.shape[0] * scale), Image.Resampling.NEAREST)


def heat(error_map: np.ndarray) -> np.ndarray:
    """An error map (H, W) in [0, 1] as colours from black over red and yellow to white, uint8 (H, W, 3)."""
    ramps = np.clip(3 * error_map[..., None] - np.arange(3), 0, 1)
    return (255 * ramps).astype(np.uint8)


def keypoint_panel(
    detectors: Sequence[KeypointDetector], frames: np.ndarray, further: Sequence[Row] = ()
) -> np.ndarray:
    """A picture as the paper's figure 2: frames, keypoints with their windows, a PermaKey's error maps, in rows.

    :param detectors: of one model, one for each row of keypoints
    :param frames: uint8 (B, 84, 84, 3)
    :param further: rows below the keypoints'
    :return: uint8 (height, width, 3)
    """
    rows: list[Row] = [("frame", [enlarge(frame) for frame in frames])]
    for detector in detectors:
        drawn = zip(frames, detector.detect(frames).centers, strict=True)
        overlays = [draw_keypoints(frame, centers, detector.config.window_std) for frame, centers in drawn]
        rows.append((detector.readout.kind.label, overlays))
    rows += further
    if detectors[0].model.error_map_layers:
        rows += error_map_rows(detectors[0], frames)
    return panel(rows)


def error_map_rows(detector: KeypointDetector, frames: np.ndarray) -> list[Row]:
    """A PermaKey's error maps of frames uint8 (B, 84, 84, 3), a row for each of its layers.

    :raises ValueError: when the detector's model has none
    """
    maps = detector.error_maps(frames)
    return [
        (f"error map\nof layer {layer}", [enlarge(heat(error_map)) for error_map in maps[:, index]])
        for index, layer in enumerate(detector.model.error_map_layers)
    ]


def panel(rows: Sequence[Row]) -> np.ndarray:
    """Rows of enlarged frames with their labels on the left, uint8 (height, width, 3)."""
    tile = IMAGE_SIZE * SCALE + GAP_PX
    columns = max(len(pictures) for _, pictures in rows)
    picture = Image.new("RGB", (LABEL_PX + tile * columns, tile * len(rows) + GAP_PX), (255, 255, 255))
    canvas = ImageDraw.Draw(picture)
    for row, (label, pictures) in enumerate(rows):
        top = GAP_PX + row * tile
        canvas.text((GAP_PX, top + tile // 3), label, fill=(0, 0, 0), font=ImageFont.load_default(18))
        for column, one in enumerate(pictures):
            picture.paste(one, (LABEL_PX + column * tile, top))
    return np.asarray(picture)


def keypoint_animation(detector: KeypointDetector, frames: np.ndarray, batch_size: int = 32) -> list[np.ndarray]:
    """Consecutive frames enlarged with their keypoints; peaks keep their colours from frame to frame.

    :param detector: a detector
    :param frames: uint8 (B, 84, 84, 3)
    :param batch_size: frames whose keypoints are computed at once
    :return: B pictures uint8 (H, W, 3)
    """
    tracker = KeypointTracker()
    pictures = []
    for first in range(0, len(frames), batch_size):
        batch = frames[first : first + batch_size]
        keypoints = detector.detect(batch)
        if detector.readout.kind.needs_tracking:
            keypoints = tracker.track(keypoints, [False] * len(batch), rows=[0] * len(batch))
        pictures += [
            np.asarray(draw_keypoints(frame, points, detector.config.window_std))
            for frame, points in zip(batch, keypoints.centers, strict=True)
        ]
    return pictures


def save_png(path: str | Path, picture: np.ndarray) -> Path:
    """Write a picture uint8 (H, W, 3)."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="PNG")
    return write_atomically(path, content.getvalue())


def save_gif(path: str | Path, pictures: Sequence[np.ndarray], frames_per_second: float) -> Path:
    """Write pictures uint8 (H, W, 3) as an animation that repeats."""
    content = io.BytesIO()
    first, *rest = [Image.fromarray(picture) for picture in pictures]
    duration_ms = round(1000 / frames_per_second)
    first.save(content, format="GIF", save_all=True, append_images=rest, duration=duration_ms, loop=0)
    return write_atomically(path, content.getvalue())


def import_imageio() -> ModuleType:
    """The package that writes videos.

    :raises ImportError: when imageio or imageio-ffmpeg is not installed
    """
    try:
        import imageio
        import imageio_ffmpeg  # noqa: F401 - imageio finds it by itself, and tells its lack as another error
    except ImportError as error:
        raise missing_package("videos need imageio", "atari") from error
    return imageio


def save_mp4(path: str | Path, pictures: Iterable[np.ndarray], frames_per_second: float) -> Path:
    """Write pictures uint8 (H, W, 3), sides even, as a video that browsers play.

    :raises ImportError: when imageio and imageio-ffmpeg are not installed
    """
    imageio = import_imageio()
    # imageio closes a writer within which something failed some time later, and then writes its file once more.
    with (
        atomic_path(path) as part,
        closing(imageio.v2.get_writer(part, fps=frames_per_second, macro_block_size=2)) as video,
    ):
        for picture in pictures:
            video.append_data(picture)
    return Path(path)


def _box(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return (x - radius, y - radius, x + radius, y + radius)
