"""What the help of `train` says of flags whose values are the presets'."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import tyro

from sb3_permakey.encoders import KeypointGNN
from sb3_permakey.training.presets import PRESETS, Preset, PresetName, context_in, default_arguments

SHOWN_AS: dict[PresetName, str] = {"strong": "recurrent strong"}


def values_of_presets(value: Callable[[Preset], Any]) -> Any:
    """What the help says of a flag that is empty by default: the value in each preset."""
    presets: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        presets.setdefault(str(value(preset)), []).append(SHOWN_AS.get(name, name))
    values = [f"{', '.join(names)}: {shown}" for shown, names in presets.items()]
    shown = "; ".join(values) if len(values) > 1 else f"default: {next(iter(presets))}"
    return tyro.conf.arg(help_behavior_hint=f"({shown})")


def values_of_argument(name: str) -> Any:
    """The same for one of the algorithms' arguments."""

    def value(preset: Preset) -> Any:
        return preset.agent.get(name, default_arguments(preset.algorithms[0])[name])

    return values_of_presets(value)


def aggregate_of(preset: Preset) -> str:
    """How the preset's GNN joins its nodes."""
    if preset.encoder != "gnn":
        return "-"
    encoder = preset.agent.get("policy_kwargs", {}).get("features_extractor_kwargs", {})
    return encoder.get("aggregate", inspect.signature(KeypointGNN).parameters["aggregate"].default)


def context_of(preset: Preset) -> str:
    """What the preset's encoder reads beside keypoints."""
    return context_in(preset.agent)


READOUT_HELP = "How keypoints are read. Without --readout as the preset does: " + ", ".join(
    f"{SHOWN_AS.get(name, name)} by {preset.readout or 'pointnet, or peaks where the checkpoint has no PointNet'}"
    for name, preset in PRESETS.items()
)
