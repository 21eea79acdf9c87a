"""The scores as a text table."""

from __future__ import annotations

from typing import Any

from sb3_permakey.scores.measures import CATEGORY_SCORES


def keypoint_score_table(result: dict[str, Any]) -> str:
    """The scores as a text table: figures in rows, their 95 % intervals beside them; then each kind of object alone.

    :param result: of `score`
    """
    settings, columns = result["settings"], list(result["scores"])
    lines = [
        f"{settings['game']}, {result['frames']} frames of {result['episodes']} episodes, "
        f"{settings['num_keypoints']} keypoints, within {settings['margin_px']:g} px",
        _row("", columns),
    ]
    for name in result["scores"]["keypoints"]:
        label = name.replace("_", " ") + (" (px)" if name == "stability" else "")
        lines.append(_row(label, [_cell(result["scores"][column].get(name)) for column in columns]))
    if result["bars_area_share"] is not None:
        lines.append(f"the bars cover {result['bars_area_share']:.3f} of a frame")
    if len(result["checkpoints"]) > 1:
        for checkpoint in result["checkpoints"]:
            lines.append(f"{checkpoint['checkpoint']}: F1 {_cell(checkpoint['scores']['f1'])}")
    return "\n".join([*lines, "", *_category_lines(result)])


def _category_lines(result: dict[str, Any]) -> list[str]:
    """Of each category of objects: how many a frame has, and the scores of the keypoints alone."""
    titles = [name.replace("_px", " (px)").replace("_", " ") for name in CATEGORY_SCORES]
    lines = [_row("objects, per frame", titles)]
    for category, count in result["objects_per_frame"].items():
        figures = result["categories"]["keypoints"][category]
        lines.append(_row(f"{category}, {count:.1f}", [_cell(figures[name]) for name in CATEGORY_SCORES]))
    return lines


def _row(label: str, cells: list[str]) -> str:
    return f"{label:<28}" + "".join(f"{cell:>22}" for cell in cells)


def _cell(figure: dict[str, float | None] | None) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
