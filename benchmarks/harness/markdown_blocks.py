"""Measured parts of a document: renewed between their marks, or filled into a benchmark's notes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def renewed(path: Path, **parts: str) -> str:
    """A file's text with each part, in place of what was there, between the lines <!-- name --> and <!-- /name -->.

    :raises ValueError: these lines are missing, or not in order
    """
    text = path.read_text()
    for name, part in parts.items():
        first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, opening, rest = text.partition(f"{first}\n")
        _, closing, after = rest.partition(f"\n{last}")
        if not closing:
            raise ValueError(f"{path} has no lines {first} and, below it, {last}")
        text = f"{before}{opening}{part}{closing}{after}"
    return text


def filled(notes: Path, **parts: str | Sequence[str] | None) -> str:
    """A report: a benchmark's notes, the prose, with each part in place of its mark <!-- name -->.

    :param notes: Markdown file
    :param parts: text or lines of each mark; None leaves out the mark's whole section, from its heading to the next
    :raises ValueError: a mark without its part, or a part without its mark
    """
    sections = re.split(r"(?m)^(?=#+ )", notes.read_text())
    whole = "".join(sections)
    marks = set(re.findall(r"<!-- (\w+) -->", whole))
    if marks != set(parts):
        raise ValueError(f"{notes} has marks for {sorted(marks)}, but there are parts for {sorted(parts)}")
    left_out = {f"<!-- {name} -->" for name, part in parts.items() if part is None}
    text = "".join(section for section in sections if not any(mark in section for mark in left_out))
    for name, part in parts.items():
        if part is not None:
            text = text.replace(f"<!-- {name} -->", part if isinstance(part, str) else "\n".join(part))
    return text.rstrip("\n") + "\n"
