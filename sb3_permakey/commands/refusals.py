"""Why a command line cannot be: what the parser of options says of it, as one sentence in the package's own words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass

NUMBERS = {"INT": "whole number", "FLOAT": "number"}
COLOURS, BOXES = re.compile(r"\x1b\[[0-9;]*m"), "│╭╮╰╯─ "


def refusal(text: str, given: Sequence[str], kinds: Mapping[str, type]) -> str | None:
    """The sentence for what the parser printed; None where it printed something that is not known here.

    :param text: what it printed, its lines not wrapped
    :param given: the command line, of one word at least
    :param kinds: the settings of each command
    """
    command = given[0]
    if command not in kinds:
        return f"there is no command {command!r}{_nearest(command, kinds)}; the commands are {', '.join(kinds)}"
    lines = [line.strip(BOXES) for line in COLOURS.sub("", text).splitlines()]
    lines = [line for line in lines if line.strip("-")]
    told = [_bad_value(lines, given), _missing(lines), _unknown(lines, kinds[command])]
    sentence = "; ".join(part for part in told if part)
    return f"{command}: {sentence} (`sb3-permakey {command} --help` says more)" if sentence else None


def options(kind: type) -> list[str]:
    """A command's options, "--steps", those of settings within its settings among them."""
    found = []
    for one in fields(kind):
        made = one.default_factory() if one.default_factory is not MISSING else None
        found += options(type(made)) if is_dataclass(made) else [f"--{one.name.replace('_', '-')}"]
    return found


def _bad_value(lines: Sequence[str], given: Sequence[str]) -> str | None:
    """A value that an option cannot have, or none where it needs one."""
    text = "\n".join(lines)
    if found := re.search(r"invalid choice '(.*?)' for argument '?(\S+?)'?\. Expected one of \((.*?)\)", text):
        value, option, listed = found.groups()
        choices = sorted(set(re.findall("'(.*?)'", listed)) - {"None"})
        return f"{_plain(option)} must be one of {', '.join(choices)}, not {value!r}"
    if found := re.search(r"Missing value for argument '(\S+)'\. Expected (\S+)", text):
        option, count = found.groups()
        return f"{_plain(option)} needs {f'{count} values' if count.isdigit() and count != '1' else 'a value'}"
    if found := re.search(r"Error parsing (\S+): ", text):
        option = found.group(1)
        values = " ".join(_values_of(option, given))
        helped = re.search(rf"Argument helptext:\n{re.escape(option)} (.*)", text)
        words = re.findall(r"[A-Z]+", helped.group(1)) if helped else []
        number = NUMBERS.get(words[-1]) if words else None
        wanted = f"a {number}" if len(words) == 1 else f"{number}s"
        return f"{option} takes {wanted}, not {values!r}" if number else f"{option} cannot be {values!r}"
    return None


def _missing(lines: Sequence[str]) -> str | None:
    """Options that a command cannot do without."""
    needed = _between(lines, "Missing from", ("Unrecognized options", "For full help"))
    names = [line.split()[0] for line in needed if re.match(r"--[a-z]|\{|[A-Z.]+$", line)]
    if not names:
        return None
    return f"{' and '.join([', '.join(names[:-1]), names[-1]] if names[1:] else names)} must be given"


def _unknown(lines: Sequence[str], kind: type) -> str | None:
    """What a command has no option for."""
    start = "Unrecognized options:"
    listed = [line.removeprefix(start) for line in lines if line.startswith(f"{start} ")]
    # In one line, separated by commas; or, beside what is missing, in a line for each.
    parts = listed[0].strip().split(", ") if listed else _between(lines, start, ("For full help",))
    names = [part for part in parts if part.startswith("-")]
    if names:
        return f"there is no option {' or '.join(names)}{_nearest(names[0], options(kind))}"
    return f"there is no use for {' '.join(parts)!r}" if parts else None


def _between(lines: Sequence[str], start: str, ends: tuple[str, ...]) -> list[str]:
    """The lines behind the one that begins with `start`, up to one that begins with any of `ends`."""
    at = next((index for index, line in enumerate(lines) if line.startswith(start)), len(lines))
    found: list[str] = []
    for line in lines[at + 1 :]:
        if line.startswith(ends):
            break
        found.append(line)
    return found


def _plain(option: str) -> str:
    """An option's name without what some releases of the parser put around it."""
    return option.strip("(),'").rpartition(".")[2]


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name.replace("_", "-"), list(known), n=1)
    return f": perhaps {nearest[0]}" if nearest else ""


def _values_of(option: str, given: Sequence[str]) -> list[str]:
    """What stands behind an option on the command line."""
    for place, part in enumerate(given):
        name, equals, value = part.partition("=")
        if name.replace("_", "-") == option:
            behind = list(given[place + 1 :])
            following = [index for index, one in enumerate(behind) if one.startswith("--")]
            return [value] if equals else behind[: following[0] if following else len(behind)]
    return []
