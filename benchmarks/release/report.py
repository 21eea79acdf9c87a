"""The table of the demo's agent, as `make demo` scored it: python -m benchmarks.release.report"""

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

SCHEMAS = (ResultSchema("demo.json", {"game": str, "seeds": list, "agent": dict, "random": dict}),)
PLAYERS = {"agent": "RecurrentDQN on peaks", "random": "random"}
COLUMNS = ("mean", "std", "median", "min", "max")


@dataclass(frozen=True)
class ReportConfig:
    """Write the table."""

    results: Path = Path("benchmarks/results/demo.json")
    """What the demo's last step wrote."""
    page: Path = Path("docs/results.md")
    """File in which to renew the table between its marks, <!-- demo --> and <!-- /demo -->."""


def demo_table(result: dict[str, Any]) -> list[str]:
    """Scores of the agent and of the random policy."""
    rows = [[label, *(f"{result[player][name]:.0f}" for name in COLUMNS)] for player, label in PLAYERS.items()]
    return table(["policy", *COLUMNS], rows)


def write_report(config: ReportConfig) -> None:
    """Write the table."""
    lines = demo_table(json.loads(config.results.read_text()))
    write_atomically(config.page, renewed(config.page, demo="\n".join(lines)).encode())
    print(config.page)


def command() -> None:
    """The command line."""
    run_command("release.report", ReportConfig, write_report)


if __name__ == "__main__":
    command()
