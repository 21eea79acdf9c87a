"""Measured parts of a document, renewed by the benchmark that wrote them."""

from pathlib import Path


def renewed(path: Path, name: str, part: str) -> str:
    """A file's text with another part between the lines <!-- name --> and <!-- /name -->.

    :raises ValueError: these lines are missing, or not in order
    """
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, opening, rest = path.read_text().partition(f"{first}\n")
    _, closing, after = rest.partition(f"\n{last}")
    if not closing:
        raise ValueError(f"{path} has no lines {first} and, below it, {last}")
    return f"{before}{opening}{part}{closing}{after}"
