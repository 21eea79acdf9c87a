"""Measured parts of a document, renewed by the benchmark that wrote them."""

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
