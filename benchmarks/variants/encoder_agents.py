"""Agents with the encoders that are compared: a table of the games of their training, from `benchmarks.atari100k`.

    python -m benchmarks.atari100k --preset rainbow --steps 20000 --test-episodes 0 --results runs/agents \\
        --methods permakey-peaks-attention-rainbow --settings exploration_fraction=0.2

The fraction is that of 100,000 steps. JSON files of such runs lie in benchmarks/results/encoder_agents.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.atari100k.methods import METHODS
from benchmarks.atari100k.tables import training_games
from benchmarks.harness.tables import table
from benchmarks.keypoints.run import NUM_KEYPOINTS

AGENTS = "encoder_agents"
FIRST_STEP = 5_000
"""Games that end before it are mostly random."""


def encoder_of(run: dict[str, Any]) -> str:
    """The encoder's name in the other tables, and how many peaks it reads where that is not the paper's K."""
    encoder = METHODS[run["method"]].encoder
    arguments = run["settings"].get("policy_kwargs", {}).get("features_extractor_kwargs", {})
    name = str(encoder)
    if encoder == "gnn":
        name = str(arguments.get("conv", "pool, layer norm, 4 frequencies")).removesuffix("Conv")
    count = run["num_keypoints"]
    return name if count == NUM_KEYPOINTS[run["game"]] else f"{name}, {count} peaks"


def agents_table(folder: Path) -> list[str]:
    """A row for each encoder and number of peaks, a column for each game and seed."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    columns = sorted({(run["game"], run["seed"]) for run in runs})
    cells: dict[str, dict[tuple[str, int], str]] = {}
    for run in runs:
        cells.setdefault(encoder_of(run), {})[run["game"], run["seed"]] = training_games(run, first=FIRST_STEP)
    rows = [[name, *(row.get(column, "-") for column in columns)] for name, row in sorted(cells.items())]
    return table(["encoder", *(f"{game}, seed {seed}" for game, seed in columns)], rows)
