"""Agents that `train` knows by name, and their settings."""

from __future__ import annotations

import copy
import inspect
from typing import Any, Literal, NamedTuple, get_args

from sb3_permakey.common.presets import RAINBOW_PEAKS, STRONG
from sb3_permakey.common.recurrent_q_learning import RecurrentQLearning
from sb3_permakey.encoders import KeypointEncoder
from sb3_permakey.keypoints import ReadoutName
from sb3_permakey.rainbow import Rainbow
from sb3_permakey.recurrent_dqn import RecurrentDQN
from sb3_permakey.recurrent_qrdqn import RecurrentQRDQN

AlgorithmName = Literal["recurrent-dqn", "recurrent-qrdqn", "rainbow"]
ALGORITHMS: dict[AlgorithmName, type[RecurrentQLearning]] = {
    "recurrent-dqn": RecurrentDQN,
    "recurrent-qrdqn": RecurrentQRDQN,
    "rainbow": Rainbow,
}
PresetName = Literal["paper", "strong", "rainbow"]


class Preset(NamedTuple):
    """An agent on keypoints.

    :param agent: the algorithm's arguments beside its defaults, those of the encoder among them
    :param readout: how its keypoints are read; None: by the checkpoint's PointNet, and as peaks where it has none
    :param algorithms: who learns; the first where nobody is named
    :param encoder: of the keypoints
    :param history: how many of its last displacements each keypoint carries
    :param novelty: scale of the bonus for keypoints in new places, see `VecKeypointNovelty`; 0: none
    """

    agent: dict[str, Any]
    readout: ReadoutName | None
    algorithms: tuple[AlgorithmName, ...] = ("recurrent-dqn", "recurrent-qrdqn")
    encoder: KeypointEncoder = "gnn"
    history: int = 0
    novelty: float = 0.0


PRESETS: dict[PresetName, Preset] = {
    "paper": Preset({}, None),
    "strong": Preset(STRONG, "peaks"),
    "rainbow": Preset(RAINBOW_PEAKS, "peaks", ("rainbow",), "pairs", history=3),
}


def default_arguments(algorithm: AlgorithmName) -> dict[str, Any]:
    """An algorithm's arguments beside policy, environment and log, with their defaults."""
    return {
        name: argument.default
        for name, argument in inspect.signature(ALGORITHMS[algorithm]).parameters.items()
        if name not in ("policy", "env", "tensorboard_log", "_init_setup_model")
    }


def preset_arguments(preset: PresetName, encoder: KeypointEncoder | None) -> dict[str, Any]:
    """The algorithm's arguments beside its defaults.

    :param preset: of `PRESETS`
    :param encoder: of keypoints; None for an agent that sees pixels
    """
    arguments = copy.deepcopy(PRESETS[preset].agent)
    if encoder:
        arguments.setdefault("policy_kwargs", {})["keypoint_encoder"] = encoder
    if encoder != PRESETS[preset].encoder:
        arguments.get("policy_kwargs", {}).pop("features_extractor_kwargs", None)
    return arguments


def context_in(arguments: dict[str, Any]) -> str:
    """What the encoder of an agent with these arguments reads beside keypoints: "image", "glimpses" or "none"."""
    policy = arguments.get("policy_kwargs") or {}
    return policy.get("features_extractor_kwargs", {}).get("context") or "none"


def reads_images(arguments: dict[str, Any]) -> bool:
    """Whether the encoder of keypoints that an agent's arguments describe reads the frames too."""
    policy = arguments.get("policy_kwargs") or {}
    return policy.get("keypoint_encoder") == "cnn" or context_in(arguments) != "none"


def choose_agent(algorithm: AlgorithmName | None, preset: PresetName | None) -> tuple[AlgorithmName, PresetName]:
    """Algorithm and preset where one or both are not named: "paper" where neither is.

    "strong" is the strongest that the algorithm has; where none is named, Rainbow with the preset "rainbow".

    :raises ValueError: when the preset is of another algorithm
    """
    if preset is None:
        wanted = algorithm or "recurrent-dqn"
        return wanted, next(name for name in get_args(PresetName) if wanted in PRESETS[name].algorithms)
    if preset == "strong" and algorithm in (None, "rainbow"):
        return "rainbow", "rainbow"
    known = PRESETS[preset].algorithms
    if algorithm is not None and algorithm not in known:
        raise ValueError(f"the preset {preset} is of the algorithm {' or '.join(known)}, not of {algorithm}")
    return algorithm or known[0], preset
