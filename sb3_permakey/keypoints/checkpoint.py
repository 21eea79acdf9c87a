"""Keypoint checkpoints: one safetensors file with its format, version, kind and config inside."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from sb3_permakey.files import read_tensors, write_tensors
from sb3_permakey.keypoints.device import place
from sb3_permakey.keypoints.model import MODELS, KeypointModel
from sb3_permakey.keypoints.shipped import CheckpointError, locate_checkpoint, shipped_checkpoints

FORMAT = "sb3-permakey keypoints"
VERSION = 2
READABLE_VERSIONS = ("1", "2")
"""Version 1 knows PermaKey alone and no files for detection only."""

GAME = "game"
"""Metadata: the game whose frames a model was trained on, without what its gymnasium id adds."""

FOR_DETECTION_ONLY = "for_detection_only"
"""Metadata, "true" in a file without what only training needs."""

NEIGHBOURS = "neighbours.weight"
"""End of the names of the LSPN's 3x3 convolutions, whose centre tap is zero."""
CENTRE_TAP = 4


def save_checkpoint(model: KeypointModel, path: str | Path, *, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a keypoint model; an older file in its place survives until the new one is whole.

    :param model: the model to write
    :param path: file to write, by habit ending in ".safetensors"
    :param metadata: what else the file shall say, how the model was trained for one
    :return: the path
    :raises CheckpointError: for a model that was itself read from a file for detection only
    :raises OSError: when the disk does not take it
    """
    require_trainable(model)
    return write_tensors(path, model.state_dict(), _header(model, metadata))


def save_for_detection(model: KeypointModel, path: str | Path, *, metadata: Mapping[str, str] | None = None) -> Path:
    """Write what keypoints and error maps need of a model, a fraction of its checkpoint.

    Weights are rounded to float16; biases and BatchNorm statistics, which are few and scale everything, are not.

    :param model: the model to write
    :param path: file to write, by habit ending in ".safetensors"
    :param metadata: what else the file shall say, how the model was trained for one
    :return: the path
    :raises OSError: when the disk does not take it
    """
    training_only = model.training_only
    tensors = {
        name: _pack(name, tensor) for name, tensor in model.state_dict().items() if not name.startswith(training_only)
    }
    return write_tensors(path, tensors, _header(model, metadata) | {FOR_DETECTION_ONLY: "true"})


def load_checkpoint(path_or_name: str | Path) -> KeypointModel:
    """Read a keypoint model, in evaluation mode, float32, on the CPU.

    Of a file for detection only, the modules that only training needs are left as they were made, and
    `require_trainable` refuses the model.

    :param path_or_name: a file that `save_checkpoint` or `save_for_detection` wrote, or the name of a checkpoint that
        comes with the package ("mspacman", "seaquest-noisy", "mspacman-transporter")
    :raises CheckpointError: when it is missing, truncated or of another format or version
    """
    path = locate_checkpoint(path_or_name)
    metadata, tensors = _read(path)
    model_class = MODELS.get(metadata.get("kind", ""))
    if model_class is None:
        raise CheckpointError(
            f"{path} holds a model of kind {metadata.get('kind')}, this release reads {', '.join(MODELS)}"
        )
    try:
        model = model_class(model_class.config_class(**json.loads(metadata["config"])))
        _fill(model, tensors, for_detection_only=metadata.get(FOR_DETECTION_ONLY) == "true")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold the tensors that its config asks for") from error
    return place(model, torch.device("cpu")).eval()


def checkpoint_metadata(path_or_name: str | Path) -> dict[str, str]:
    """What a checkpoint says beside its model, as it was given when the file was written.

    :param path_or_name: as for `load_checkpoint`
    :raises CheckpointError: when it is missing, truncated or of another format or version
    """
    return json.loads(_read(locate_checkpoint(path_or_name))[0].get("metadata", "{}"))


def warn_of_another_game(path_or_name: str | Path, game: str) -> None:
    """Warn when a checkpoint says that it was trained on the frames of another game.

    :param path_or_name: as for `load_checkpoint`
    :param game: where its keypoints are wanted, without what its gymnasium id adds
    :raises CheckpointError: when it is missing, truncated or of another format or version
    """
    path = locate_checkpoint(path_or_name)
    shipped = {checkpoint.path: checkpoint.game for checkpoint in shipped_checkpoints()}
    trained_on = shipped.get(path) or checkpoint_metadata(path).get(GAME)
    if trained_on and trained_on != game:
        warnings.warn(
            f"the checkpoint {path_or_name} was trained on {trained_on}: its keypoints may miss what {game} shows",
            stacklevel=3,
        )


def model_fingerprint(model: KeypointModel) -> str:
    """SHA-256 of the weights that make a model's keypoints and error maps, as a file for detection only holds them.

    So a model has the same fingerprint read from its checkpoint and from that file, and on every device.
    """
    digest, training_only = hashlib.sha256(), model.training_only
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith(training_only):
            digest.update(name.encode() + _pack(name, tensor.detach().cpu()).contiguous().numpy().tobytes())
    return digest.hexdigest()


def require_trainable(model: KeypointModel) -> None:
    """Raise CheckpointError for a model that was read from a file for detection only."""
    if model.for_detection_only:
        raise CheckpointError("the model comes from a checkpoint for detection only, which cannot be trained further")


def _header(model: KeypointModel, metadata: Mapping[str, str] | None) -> dict[str, str]:
    config: Any = model.config
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "kind": model.kind,
        "config": json.dumps(asdict(config)),
        "metadata": json.dumps(dict(metadata or {})),
    }


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a keypoint checkpoint of a version that this release reads."""
    if not path.is_file():
        raise CheckpointError(f"no keypoint checkpoint at {path}")
    try:
        metadata, tensors = read_tensors(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file but not a keypoint checkpoint of sb3-permakey")
    if metadata.get("version") not in READABLE_VERSIONS:
        raise CheckpointError(
            f"{path} has checkpoint version {metadata.get('version')}, "
            f"this release reads versions {' and '.join(READABLE_VERSIONS)}"
        )
    return metadata, tensors


def _fill(model: KeypointModel, tensors: dict[str, Tensor], *, for_detection_only: bool) -> None:
    """Load a file's tensors into a fresh model."""
    if not for_detection_only:
        model.load_state_dict(tensors)
        return
    unpacked = {name: _unpack(name, tensor) for name, tensor in tensors.items()}
    missing, unexpected = model.load_state_dict(unpacked, strict=False)
    if unexpected or not all(name.startswith(model.training_only) for name in missing):
        raise ValueError(f"unexpected tensors {unexpected}, missing tensors {missing}")
    model.for_detection_only = True


def _pack(name: str, tensor: Tensor) -> Tensor:
    """Weights in float16, the LSPN's 3x3 kernels (out, in, 3, 3) as their eight taps (out, in, 8)."""
    if name.endswith(NEIGHBOURS):
        taps = tensor.flatten(2)
        tensor = torch.cat([taps[..., :CENTRE_TAP], taps[..., CENTRE_TAP + 1 :]], dim=-1)
    return tensor.half() if tensor.ndim > 1 else tensor


def _unpack(name: str, tensor: Tensor) -> Tensor:
    """The tensor that `_pack` packed."""
    if name.endswith(NEIGHBOURS):
        before, after = tensor[..., :CENTRE_TAP], tensor[..., CENTRE_TAP:]
        tensor = torch.cat([before, torch.zeros_like(after[..., :1]), after], dim=-1).unflatten(-1, (3, 3))
    return tensor
