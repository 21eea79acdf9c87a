"""The folder of a training: whether it is free for a run, or holds the beginning of this very run."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from sb3_permakey.common.run_checkpoint import has_run, saved_steps
from sb3_permakey.envs.atari import plain_game_name
from sb3_permakey.files import write_json
from sb3_permakey.provenance import provenance
from sb3_permakey.training.validation import BEST_MODEL, VALIDATIONS

FINAL_MODEL, SETTINGS = "final_model.zip", "config.json"
RUN = "run"
"""Folder of the run's own checkpoint, the newest, from which it goes on."""
MAY_CHANGE = ("steps", "save_every", "device", "tensorboard", "progress")
"""Settings that may differ when a run goes on."""


def run_goes_on(folder: Path, settings: dict[str, Any], compared: tuple[str, ...], *, resume: bool) -> bool:
    """Whether the folder holds the beginning of the run with these settings, to go on with.

    A finished run goes on when it is asked for more steps, a killed one with `resume`; one with the same settings that
    died before its first checkpoint begins anew.

    :param folder: of the run
    :param settings: of the run that is wanted, as `begin` writes them, "steps" among them
    :param compared: names of the settings that must be the same
    :param resume: whether to go on with a run that was killed
    :raises ValueError: when the folder holds another run, or one that cannot go on like that
    """
    steps, begun = settings["steps"], has_run(folder / RUN)
    finished = _steps_of(folder / FINAL_MODEL)
    if finished is not None and steps <= finished:
        raise ValueError(
            f"{folder} already holds a trained agent, after {finished} steps: it goes on to more --steps than these "
            f"{steps}, or give another --out"
        )
    held = [name for name in (FINAL_MODEL, BEST_MODEL, VALIDATIONS, RUN) if (folder / name).exists()]
    if held and not (folder / SETTINGS).exists():
        raise ValueError(f"{folder} holds {', '.join(held)} but not the settings that made them; give another --out")
    if held:
        _require_same(folder, settings, compared)
    if finished is not None and not begun:
        raise ValueError(
            f"{folder} holds a trained agent without the replay buffer, which more steps need; give another --out"
        )
    if begun and finished is None and not resume:
        raise ValueError(f"{folder} holds a run that was killed; go on with it by --resume, or give another --out")
    if begun and steps < saved_steps(folder / RUN):
        raise ValueError(
            f"{folder} holds a run that has made {saved_steps(folder / RUN)} steps already; give at least as many "
            f"--steps, not {steps}"
        )
    return begun


def begin(folder: Path, settings: dict[str, Any]) -> None:
    """Make a folder ready for a new run: its settings are written, files of one that died are removed."""
    for name in (BEST_MODEL, VALIDATIONS):
        (folder / name).unlink(missing_ok=True)
    write_json(folder / SETTINGS, {**settings, **provenance()})


def go_on(folder: Path, settings: dict[str, Any]) -> None:
    """Take over the settings that may change, and write down that the run goes on and how."""
    found = json.loads((folder / SETTINGS).read_text())
    changed = {name: settings[name] for name in MAY_CHANGE}
    went_on = {"after_steps": saved_steps(folder / RUN), **changed, **provenance()}
    write_json(folder / SETTINGS, {**found, **changed, "went_on": [*found.get("went_on", []), went_on]})


def _require_same(folder: Path, settings: dict[str, Any], compared: tuple[str, ...]) -> None:
    """What an older release wrote down in another way, or not at all, does not count as different."""
    found = {"novelty": 0.0, **json.loads((folder / SETTINGS).read_text())}
    if found.get("game") is not None:
        found["game"] = plain_game_name(str(found["game"]))
    if settings["encoder"] is None and "checkpoint_sha256" not in found:
        found.pop("encoder", None)
    other = [
        f"{name} {found[name]!s:.24}, not {settings[name]!s:.24}"
        for name in compared
        if name in found and found[name] != settings[name]
    ]
    if other:
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(other)}): go on with its own, or give another --out"
        )


def _steps_of(model: Path) -> int | None:
    """Steps that a saved model has learned from; None where there is none."""
    if not model.exists():
        return None
    with zipfile.ZipFile(model) as archive:
        return int(json.loads(archive.read("data"))["num_timesteps"])
