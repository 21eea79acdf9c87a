"""Pictures of keypoints: overlays, error maps, animations."""

from __future__ import annotations

import colorsys
import io
import os
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

SCALE = 3
"""Pixels of a picture for one pixel of a frame."""
GAP_PX = 6
LABEL_PX = 110
DOT_RADIUS_PX = 4
ATTENTION_RADIUS_PX = 12
"""Of a frame's pixels, where all queries look at one keypoint alone."""
OPACITY = 170
LETTER_PX = 16
"""Height of the letters beside keypoints and around pictures."""
PAPER, INK = (255, 255, 255), (0, 0, 0)

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of a picture."""
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

    :param frame: uint8 (84, 84, 3), or the picture (H, W, 3) that was resized to it
    :param centers: (K, 2), (y, x) in [-1, 1]
    :param window_std: width of the windows in the same coordinates; None draws no rings
    :param scale: enlargement
    :param colors: of the K keypoints; None makes them all different
    """
    return mark_keypoints(enlarge(frame, scale), centers, window_std, colors)


def mark_keypoints(
    picture: Image.Image,
    centers: np.ndarray,
    window_std: float | None,
    colors: Sequence[Color] | None = None,
    labels: Sequence[str] | None = None,
) -> Image.Image:
    """Draw keypoints on the picture of a whole frame, of any size; the same picture.

    :param picture: the picture, which is drawn on
    :param centers: this, `window_std` and `colors` as of `draw_keypoints`
    :param labels: what is written beside each, where the others' dots and labels leave room
    """
    canvas, half = ImageDraw.Draw(picture), (IMAGE_SIZE - 1) / 2
    right, down = (side / IMAGE_SIZE for side in picture.size)
    places = [(right * (half * (x + 1) + 0.5), down * (half * (y + 1) + 0.5)) for y, x in centers]
    for (column, row), color in zip(places, colors or keypoint_colors(len(centers)), strict=True):
        if window_std is not None:
            reach = half * window_std
            canvas.ellipse(_box(column, row, right * reach, down * reach), outline=color, width=2)
        canvas.ellipse(_box(column, row, DOT_RADIUS_PX), fill=color, outline=INK)
    if labels is not None:
        _write_beside(canvas, picture.size, places, labels)
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


def _write_beside(
    canvas: ImageDraw.ImageDraw, size: tuple[int, int], places: Sequence[tuple[float, float]], labels: Sequence[str]
) -> None:
    """Write each label beside its place, on that side where it covers least of dots and labels, and stays inside."""
    font = ImageFont.load_default(LETTER_PX)
    taken = [_box(x, y, DOT_RADIUS_PX) for x, y in places]
    for (x, y), label in zip(places, labels, strict=True):
        left, top, right, bottom = canvas.textbbox((0, 0), label, font=font, stroke_width=1)
        width, height = right - left, bottom - top
        away_x, away_y = (width / 2 + DOT_RADIUS_PX + 1, height / 2 + DOT_RADIUS_PX + 1)
        around = [(1, -1), (1, 0), (1, 1), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1)]
        boxes = []
        for to_right, down in around:
            middle_x = min(max(x + to_right * away_x, width / 2), size[0] - width / 2)
            middle_y = min(max(y + down * away_y, height / 2), size[1] - height / 2)
            boxes.append(
                (middle_x - width / 2, middle_y - height / 2, middle_x + width / 2, middle_y + height / 2),
            )
        box = min(boxes, key=lambda box: sum(_overlap(box, other) for other in taken))
        taken.append(box)
        corner = (round(box[0] - left), round(box[1] - top))
        canvas.text(corner, label, font=font, fill=PAPER, stroke_width=1, stroke_fill=INK)


def _overlap(one: Box, other: Box) -> float:
    """Area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def side_by_side(pictures: Sequence[Image.Image], titles: Sequence[str], caption: str) -> Image.Image:
    """Pictures of one size in a row, each under its title, with a caption below; all sides even, as videos want them.

    :param pictures: one or more
    :param titles: of the pictures, cut where they are wider than these
    :param caption: a line
    """
    font, line = ImageFont.load_default(LETTER_PX), LETTER_PX + 2 * GAP_PX
    width, height = pictures[0].size
    whole = (len(pictures) * (width + GAP_PX) + GAP_PX, height + 2 * line)
    sheet = Image.new("RGB", (whole[0] + whole[0] % 2, whole[1] + whole[1] % 2), PAPER)
    canvas = ImageDraw.Draw(sheet)
    for index, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        left = GAP_PX + index * (width + GAP_PX)
        sheet.paste(picture, (left, line))
        canvas.text((left, GAP_PX), _cut(title, width, font), fill=INK, font=font)
    canvas.text((GAP_PX, line + height + GAP_PX), _cut(caption, whole[0] - 2 * GAP_PX, font), fill=INK, font=font)
    return sheet


def _cut(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a line as is no wider than so many pixels."""
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text


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


def keypoint_animation(detector: KeypointDetector, frames: np.ndarray, batch_size: int = 32) -> list[Image.Image]:
    """Consecutive frames enlarged with their keypoints; peaks keep their colours from frame to frame.

    :param detector: a detector
    :param frames: uint8 (B, 84, 84, 3)
    :param batch_size: frames whose keypoints are computed at once
    :return: B pictures
    """
    tracker = detector.tracker()
    pictures = []
    for first in range(0, len(frames), batch_size):
        batch = frames[first : first + batch_size]
        keypoints = detector.candidates(batch)
        if tracker is not None:
            keypoints = tracker.track(keypoints, [False] * len(batch), rows=[0] * len(batch))
        pictures += [
            draw_keypoints(frame, points, detector.config.window_std)
            for frame, points in zip(batch, keypoints.centers, strict=True)
        ]
    return pictures


def save_png(path: str | Path, picture: np.ndarray) -> Path:
    """Write a picture uint8 (H, W, 3)."""
    return write_atomically(path, png_bytes(Image.fromarray(picture)))


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as a PNG file's content."""
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return content.getvalue()


def save_gif(path: str | Path, pictures: Sequence[Image.Image], frames_per_second: float) -> Path:
    """Write pictures as an animation that repeats."""
    return write_atomically(path, gif_bytes(pictures, frames_per_second))


def gif_bytes(pictures: Sequence[Image.Image], frames_per_second: float) -> bytes:
    """Pictures as an animation that repeats: a GIF file's content."""
    content = io.BytesIO()
    first, *rest = pictures
    duration_ms = round(1000 / frames_per_second)
    first.save(content, format="GIF", save_all=True, append_images=rest, duration=duration_ms, loop=0)
    return content.getvalue()


def import_imageio() -> ModuleType:
    """The package that writes videos.

    imageio-ffmpeg forks this process to keep Ctrl-C from ffmpeg. Linux refuses that to a process which has reserved
    more memory than there is, as replay buffers may long before they are full; so ffmpeg is started without it.

    :raises ImportError: when imageio or imageio-ffmpeg is not installed
    """
    os.environ.setdefault("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")
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


def _box(x: float, y: float, reach: float, reach_down: float | None = None) -> Box:
    down = reach if reach_down is None else reach_down
    return (x - reach, y - down, x + reach, y + down)
