"""Runs of a few steps, and their losses."""

import csv

import numpy as np

from sb3_permakey.keypoints import (
    PermaKeyConfig,
)
from sb3_permakey.pretraining.config import PretrainConfig

SHORT = {"batch_size": 4, "max_steps": 4, "log_every_steps": 1, "precision": "float32", "picture_every_steps": 100}


def config_for(frame_store, out, **settings) -> PretrainConfig:
    model = PermaKeyConfig(num_keypoints=3, layers=(1,))
    return PretrainConfig(**{"frames": frame_store.path, "out": out, "model": model, **SHORT, **settings})


def losses_of(config: PretrainConfig) -> list[dict[str, str]]:
    with (config.out.with_suffix(".pretraining") / "losses.csv").open() as file:
        return list(csv.DictReader(file))


def as_numbers(rows) -> np.ndarray:
    return np.array([[float(row[name]) for name in ("reconstruction", "kl", "lspn", "pointnet")] for row in rows])
