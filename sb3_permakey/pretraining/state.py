"""The state of a pretraining run, so that a killed one goes on as if nothing had happened; safetensors, no pickles."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from sb3_permakey.files import read_tensors, write_tensors

FORMAT = "sb3-permakey pretraining state"
VERSION = 1


class StateError(ValueError):
    """A training state that is broken or of another run."""


@dataclass
class Progress:
    """Where a run stands."""

    stage: int = 0
    """Number of the stage that is being trained."""
    step: int = 0
    """Steps done in this stage."""
    steps_before: int = 0
    """Steps done in the stages before."""
    best_loss: float = float("inf")
    """Best validation loss of this stage so far."""
    epochs_without_improvement: int = 0
    """Validations since then."""
    elapsed_s: float = 0.0
    """Seconds trained, over all sessions."""
    finished: bool = False
    """The run has written its checkpoint."""

    def next_stage(self) -> None:
        """Turn to the next stage."""
        self.steps_before += self.step
        self.stage, self.step = self.stage + 1, 0
        self.best_loss, self.epochs_without_improvement = float("inf"), 0


def save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, settings: dict[str, Any]
) -> None:
    """Write weights, the optimiser's moments, the progress and the run's settings."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "progress": json.dumps(asdict(progress)),
        "settings": json.dumps(settings),
    }
    write_tensors(path, tensors, metadata)


@dataclass
class SavedState:
    """A state as read."""

    model: dict[str, torch.Tensor]
    optimizer: dict[int, dict[str, torch.Tensor]]
    progress: Progress

    def restore_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimiser over the same parameters its moments back."""
        state_dict = optimizer.state_dict()
        state_dict["state"] = self.optimizer
        optimizer.load_state_dict(state_dict)


def load_state(path: Path, settings: dict[str, Any]) -> SavedState:
    """Read a state.

    :param path: the file
    :param settings: settings of the run that wants to go on
    :raises StateError: when the file is broken or of a run with other settings
    """
    try:
        metadata, tensors = read_tensors(path)
    except (SafetensorError, OSError) as error:
        raise StateError(f"{path} is broken ({error}); delete its folder to start again") from error
    if metadata.get("format") != FORMAT or metadata.get("version") != str(VERSION):
        raise StateError(f"{path} is not a pretraining state that this release reads; delete its folder to start again")
    try:
        found, values = json.loads(metadata["settings"]), json.loads(metadata["progress"])
        progress = Progress(**{field.name: values[field.name] for field in fields(Progress)})
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path} is broken ({error!r}); delete its folder to start again") from error
    for name in sorted({*found, *settings}):
        if found.get(name) != settings.get(name):
            raise StateError(
                f"{path.parent} belongs to a run with {name} {found.get(name)}, not {settings.get(name)}; "
                "give another --out or delete the folder"
            )
    state = SavedState({}, {}, progress)
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "model":
            state.model[rest] = tensor
        else:
            index, _, moment = rest.partition("/")
            state.optimizer.setdefault(int(index), {})[moment] = tensor
    return state
