"""Pictures: the paper's figures (`python -m benchmarks.figures figure2 ...`) and the package's checkpoints on play."""

from __future__ import annotations

from functools import partial

from benchmarks.figures import shipped
from benchmarks.figures.paper import FIGURES, make_figure
from benchmarks.harness.command import run_one_of


def command() -> None:
    """The command line."""
    run_one_of(
        "figures",
        {
            **{name: (kind, partial(make_figure, rows)) for name, (kind, rows) in FIGURES.items()},
            "shipped": (shipped.PictureConfig, shipped.main),
        },
        "Pictures of keypoints: the paper's figures from checkpoints, or the package's on a frame of each game.",
    )
