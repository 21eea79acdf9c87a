"""Keypoint checkpoints: one safetensors file with its format, version and config inside."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError

from sb3_permakey.files import read_tensors, write_tensors
from sb3_permakey.keypoints.permakey import PermaKey, PermaKeyConfig
from sb3_permakey.precision import place

FORMAT = "sb3-permakey keypoints"
VERSION = 1
KIND = "permakey"


class CheckpointError(ValueError):
    """A checkpoint that is missing, broken or not fit for what it is wanted for."""


def save_checkpoint(model: PermaKey, path: str | Path) -> Path:
    """Write a keypoint model; an older file in its place survives until the new one is whole.

    :param model: the model to write
    :param path: file to write, by habit ending in ".safetensors"
    :return: the path
    :raises OSError: when the disk does not take it
    """
    config = json.dumps(asdict(model.config))
    return write_tensors(
        path, model.state_dict(), {"format": FORMAT, "version": str(VERSION), "kind": KIND, "config": config}
    )


def load_checkpoint(path: str | Path) -> PermaKey:
    """Read a keypoint model, in evaluation mode, on the CPU.

    :param path: a file that `save_checkpoint` wrote
    :raises CheckpointError: when it is missing, truncated or of another format or version
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no keypoint checkpoint at {path}")
    try:
        metadata, tensors = read_tensors(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file but not a keypoint checkpoint of sb3-permakey")
    if metadata.get("version") != str(VERSION):
        raise CheckpointError(
            f"{path} has checkpoint version {metadata.get('version')}, this release reads version {VERSION}"
        )
    if metadata.get("kind") != KIND:
        raise CheckpointError(f"{path} holds a model of kind {metadata.get('kind')}, this release reads {KIND}")
    try:
        model = PermaKey(PermaKeyConfig(**json.loads(metadata["config"])))
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold the tensors that its config asks for") from error
    return place(model, torch.device("cpu")).eval()
