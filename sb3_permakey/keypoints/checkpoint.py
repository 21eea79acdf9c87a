"""Keypoint checkpoints: one safetensors file with its format, version and config inside."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from sb3_permakey.files import write_atomically
from sb3_permakey.keypoints.permakey import PermaKey, PermaKeyConfig
from sb3_permakey.precision import place

FORMAT = "sb3-permakey keypoints"
VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint that is missing, broken or not fit for what it is wanted for."""


def save_checkpoint(model: PermaKey, path: str | Path) -> Path:
    """Write a keypoint model; an older file in its place survives until the new one is whole.

    :param model: the model to write
    :param path: file to write, by habit ending in ".safetensors"
    :return: the path
    :raises OSError: when the disk does not take it
    """
    header = {"format": FORMAT, "version": VERSION, "kind": "permakey", "config": asdict(model.config)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in header.items()}
    return write_atomically(path, safetensors.torch.save(tensors, metadata))


def load_checkpoint(path: str | Path) -> PermaKey:
    """Read a keypoint model, in evaluation mode, on the CPU.

    :param path: a file that `save_checkpoint` wrote
    :raises CheckpointError: when it is missing, truncated or of another format or version
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no keypoint checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file but not a keypoint checkpoint of sb3-permakey")
    if metadata.get("version") != str(VERSION):
        raise CheckpointError(
            f"{path} has checkpoint version {metadata.get('version')}, this release reads version {VERSION}"
        )
    try:
        model = PermaKey(PermaKeyConfig(**json.loads(metadata["config"])))
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold the tensors that its config asks for") from error
    return place(model, torch.device("cpu")).eval()
