"""Tables of the variants that were tried: python -m benchmarks.variants_report"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from sb3_permakey.files import write_atomically

CHAPTERS = {
    "peak_variants": (
        "Peaks: which map, how far apart",
        "The same error maps, read in several ways; nothing is trained. Used: first layer, 5 px.",
    ),
    "pointnet_variants": (
        "PointNet",
        "One change at a time, each trained alone on the same stored error maps.",
    ),
    "feature_variants": (
        "VAE and LSPN",
        "One change at a time, scored by the peaks of the first layer in `layers`, without a PointNet.",
    ),
}
COLUMNS = ("precision", "recall", "f1", "f1_without_displays", "tracking")


@dataclass(frozen=True)
class ReportConfig:
    """Write the tables."""

    results: Path = Path("benchmarks/results")
    """Where the folders of JSON files are, one file a game."""
    out: Path = Path("benchmarks/results/variants.md")
    """Markdown file to write."""


def value(figure: Any) -> float:
    """A figure's value, which the JSON files hold as [value, low, high] or by name."""
    return figure["value"] if isinstance(figure, dict) else figure[0]


def chapter(folder: Path) -> list[str]:
    """One table a game, a row a variant."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        lines += ["", f"**{result['game']}** (`{result['command']}`, commit {result['commit']})", ""]
        lines += ["| variant | precision | recall | F1 | F1 without displays | tracking |", "|" + "---|" * 6]
        for name, scores in result["variants"].items():
            cells = " | ".join(f"{value(scores[column]):.2f}" for column in COLUMNS)
            lines.append(f"| {name} | {cells} |")
    return lines


def main(config: ReportConfig) -> None:
    """Write the tables."""
    lines = [
        "# What was tried",
        "",
        "Written by `python -m benchmarks.variants_report` from the JSON files beside it, which hold all figures with",
        "their intervals. One training seed each: differences of a few hundredths mean nothing.",
    ]
    for name, (title, text) in CHAPTERS.items():
        tables = chapter(config.results / name)
        if tables:
            lines += ["", f"## {title}", "", text, *tables]
    write_atomically(config.out, ("\n".join(lines) + "\n").encode())
    print(config.out)


if __name__ == "__main__":
    main(tyro.cli(ReportConfig))
