"""Tables of the demo's agent, as `make demo` scored it, and of what the extras weigh.

python -m benchmarks.release.report --update
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.command import run_command
from benchmarks.harness.markdown_blocks import renewed
from benchmarks.harness.schema import ResultSchema
from benchmarks.harness.tables import table
from sb3_permakey.files import write_atomically

SCHEMAS = (
    ResultSchema("demo.json", {"game": str, "seeds": list, "agent": dict, "random": dict}),
    ResultSchema("extras.json", {"torch": dict, "core": dict, "extras": dict}),
)
PLAYERS = {"agent": "RecurrentDQN on peaks", "random": "random"}
COLUMNS = ("mean", "std", "median", "min", "max")
BRINGS = {
    "atari": "the games, pictures and videos",
    "benchmarks": "what was measured, on one machine or a Ray cluster; in a clone",
    "zoo": "RL Zoo's scripts",
    "scores": "keypoints against a game's true objects",
    "players": "agents of the Hugging Face hub and Minari's recordings as players",
    "curves": "pictures of `compare`",
    "parquet": "`.parquet` files of `detect`",
    "view": "`sb3-permakey view`",
    "window": "`evaluate --render`",
    "docs": "what makes this site; in a clone",
    "dev": "tests and lint; in a clone",
}
"""What each extra is for."""


@dataclass(frozen=True)
class ReportConfig:
    """Write the tables."""

    results: Path = Path("benchmarks/results/demo.json")
    """What the demo's last step wrote."""
    page: Path = Path("docs/results.md")
    """File in which to renew the demo's table between its marks, <!-- demo --> and <!-- /demo -->."""
    extras: Path = Path("benchmarks/results/extras.json")
    """What `benchmarks.release.extras` measured."""
    install: Path = Path("docs/install.md")
    """File in which to renew the extras' table between its marks, <!-- extras --> and <!-- /extras -->."""


def demo_table(result: dict[str, Any]) -> list[str]:
    """Scores of the agent and of the random policy."""
    rows = [[label, *(f"{result[player][name]:.0f}" for name in COLUMNS)] for player, label in PLAYERS.items()]
    return table(["policy", *COLUMNS], rows)


def extras_table(result: dict[str, Any]) -> list[str]:
    """What PyTorch, the package and the extras weigh."""
    torch = f"PyTorch {result['torch']['packages']['torch']}"
    rows = [
        (torch, "with what it needs", result["torch"]),
        ("the package", "with what it needs besides", result["core"]),
    ]
    rows += [(f"`{name}`", BRINGS[name], part) for name, part in result["extras"].items()]
    return table(
        ["", "for", "packages", "MB"],
        [[name, brings, str(len(part["packages"])), f"{part['bytes'] / 1e6:.0f}"] for name, brings, part in rows],
    )


def write_report(config: ReportConfig) -> None:
    """Write the tables."""
    tables = (
        (config.page, {"demo": demo_table(json.loads(config.results.read_text()))}),
        (config.install, {"extras": extras_table(json.loads(config.extras.read_text()))}),
    )
    for page, parts in tables:
        text = renewed(page, **{name: "\n".join(lines) for name, lines in parts.items()})
        write_atomically(page, text.encode())
        print(page)


def command() -> None:
    """The command line."""
    run_command("release.report", ReportConfig, write_report, only_update=True)


if __name__ == "__main__":
    command()
