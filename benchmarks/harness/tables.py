"""Tables of Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    return ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles), *(f"| {' | '.join(row)} |" for row in rows)]
