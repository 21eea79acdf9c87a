"""Agents with the encoders that are compared: a table of the games of their training, from `benchmarks.atari100k`.

    python -m benchmarks.atari100k --preset rainbow --steps 20000 --test-episodes 0 --results runs/agents \\
        --methods permakey-peaks-attention-rainbow --settings exploration_fraction=0.2

The fraction is that of 100,000 steps. JSON files of such runs lie in benchmarks/results/encoder_agents.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    """A row for each encoder and number of peaks; a column for each seed of a game, and for all of them together."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    titles, columns = [], []
    for game in sorted({run["game"] for run in runs}):
        seeds = sorted({run["seed"] for run in runs if run["game"] == game})
        titles += [*(f"{game}, seed {seed}" for seed in seeds), f"{game}, all seeds"]
        columns += [*((game, (seed,)) for seed in seeds), (game, tuple(seeds))]
    rows = [
        [name, *(games_of(runs, name, game, seeds) for game, seeds in columns)]
        for name in sorted({encoder_of(run) for run in runs})
    ]
    return table(["encoder", *titles], rows)


def games_of(runs: Sequence[dict[str, Any]], encoder: str, game: str, seeds: Sequence[int]) -> str:
    """Mean of the later games of an encoder's runs on a game, its standard error and their number."""
    found = [run for run in runs if encoder_of(run) == encoder and run["game"] == game and run["seed"] in seeds]
    return training_games(*found, first=FIRST_STEP)
