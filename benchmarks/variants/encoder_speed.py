"""The encoders that are compared, and what an update of Rainbow takes with each of them."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import Tensor

from benchmarks.keypoints.run import shipped_name
from sb3_permakey import (
    KeypointAttention,
    KeypointCNN,
    KeypointGNN,
    KeypointPairs,
    PermaKeyObservation,
    Rainbow,
    make_atari_env,
)
from sb3_permakey.common.presets import RAINBOW_PEAKS
from sb3_permakey.encoders.frame_context import channels_first
from sb3_permakey.files import write_json
from sb3_permakey.keypoints.device import freed_memory_kept
from sb3_permakey.provenance import provenance

SPEED = "encoders_speed.json"
GAME = "MsPacman"
COUNTS = (8, 20, 25)
"""Numbers of keypoints."""
BATCH_SIZE, WARM_UP_STEPS, UPDATES = 32, 60, 5


class FrameCNN(NatureCNN):
    """SB3's CNN on the frame alone, to say what keypoints add to pixels.

    :param space: with "image" uint8, channels last or first
    """

    def __init__(self, space: spaces.Dict) -> None:
        image: Any = space["image"]
        self.channels_last, shape = channels_first(image)
        super().__init__(spaces.Box(0, 255, shape, np.uint8))

    def forward(self, observations: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        """Features (B, 512) of floats in [0, 1]."""
        image = observations["image"]
        return super().forward(image.permute(0, 3, 1, 2) if self.channels_last else image)


@dataclass(frozen=True)
class EncoderVariant:
    """An encoder that is compared.

    :param kind: its class
    :param arguments: beside the observation space
    """

    kind: type[BaseFeaturesExtractor]
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def reads_images(self) -> bool:
        """Whether it reads the frames too."""
        return self.kind in (KeypointCNN, FrameCNN) or self.arguments.get("context") is not None

    def make(self, space: spaces.Dict) -> BaseFeaturesExtractor:
        """The encoder of a space."""
        return self.kind(space, **self.arguments)


def gnn(**arguments: Any) -> EncoderVariant:
    """A graph network."""
    return EncoderVariant(KeypointGNN, arguments)


def with_layer(conv: str, **conv_kwargs: Any) -> EncoderVariant:
    """The strong agent's graph network with a layer of torch-geometric instead of the Interaction Network."""
    return gnn(aggregate="pool", layer_norm=True, position_frequencies=4, conv=conv, conv_kwargs=conv_kwargs)


VARIANTS: dict[str, EncoderVariant] = {
    "concat (paper)": gnn(),
    "pool": gnn(aggregate="pool"),
    "pool, layer norm": gnn(aggregate="pool", layer_norm=True),
    "pool, 4 frequencies": gnn(aggregate="pool", position_frequencies=4),
    "pool, layer norm, 2 frequencies": gnn(aggregate="pool", layer_norm=True, position_frequencies=2),
    "pool, layer norm, 4 frequencies": gnn(aggregate="pool", layer_norm=True, position_frequencies=4),
    "pool, layer norm, 6 frequencies": gnn(aggregate="pool", layer_norm=True, position_frequencies=6),
    "concat, layer norm, 4 frequencies": gnn(layer_norm=True, position_frequencies=4),
    "GATv2": with_layer("GATv2Conv", heads=4),
    "Transformer": with_layer("TransformerConv", heads=4),
    "PNA": with_layer("PNAConv"),
    "pairs": EncoderVariant(KeypointPairs),
    "pairs and frame": EncoderVariant(KeypointPairs, {"context": "image"}),
    "pairs and glimpses": EncoderVariant(KeypointPairs, {"context": "glimpses"}),
    "attention": EncoderVariant(KeypointAttention),
    "CNN, 32 filters": EncoderVariant(KeypointCNN, {"filters": 32}),
    "frame alone": EncoderVariant(FrameCNN),
}


def learner(variant: EncoderVariant, count: int) -> Rainbow:
    """An agent with the encoder that has begun to learn."""
    env = PermaKeyObservation(
        make_atari_env(GAME, seed=0),
        shipped_name(GAME, "permakey", "clean"),
        readout="peaks",
        num_keypoints=count,
        history=3,
        keep_image=variant.reads_images,
        device="cpu",
    )
    policy = {"features_extractor_class": variant.kind, "features_extractor_kwargs": variant.arguments}
    settings = {**RAINBOW_PEAKS, "batch_size": BATCH_SIZE, "learning_starts": WARM_UP_STEPS - 2, "buffer_size": 500}
    agent = Rainbow("PermaKeyPolicy", env, policy_kwargs=policy, device="cpu", seed=0, **settings)
    return agent.learn(WARM_UP_STEPS)


@freed_memory_kept()
def measure(path: Path, names: Sequence[str], turns: int) -> None:
    """Time the encoders that the JSON file does not hold yet, which take turns on one thread.

    :param path: JSON file, milliseconds of each turn by name and number of keypoints
    :param names: of the encoders
    :param turns: turns of each
    """
    found = json.loads(path.read_text()) if path.exists() else {"ms": {}}
    missing = [name for name in names if name not in found["ms"]]
    if not missing:
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for count in COUNTS:
            agents = {name: learner(VARIANTS[name], count) for name in missing}
            for _ in range(turns):
                for name, agent in agents.items():
                    started = time.perf_counter()
                    agent.train(UPDATES, BATCH_SIZE)
                    took = (time.perf_counter() - started) / UPDATES * 1000
                    found["ms"].setdefault(name, {}).setdefault(str(count), []).append(took)
    finally:
        torch.set_num_threads(threads)
    write_json(path, {**found, "game": GAME, "batch_size": BATCH_SIZE, "threads": 1, **provenance()})


def titles(timed: dict[str, Any] | None) -> list[str]:
    """Titles of the columns of milliseconds."""
    return [f"ms, K = {count}" for count in COUNTS] if timed else []


def cells(timed: dict[str, Any] | None, name: str) -> list[str]:
    """A row's milliseconds, of the median turn."""
    if not timed:
        return []
    turns = timed["ms"].get(name)
    return [f"{statistics.median(turns[str(count)]):.1f}" if turns else "-" for count in COUNTS]
