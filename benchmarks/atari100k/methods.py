"""What `benchmarks.atari100k` compares: methods, presets of the recurrent agent, and all hyperparameters."""

from __future__ import annotations

import ast
import copy
import inspect
from dataclasses import dataclass, field
from typing import Any, Literal

from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule

from benchmarks.atari100k.checkpoints import KeypointMethod
from sb3_permakey.common.presets import DATA_EFFICIENT_RAINBOW
from sb3_permakey.encoders import KeypointEncoder
from sb3_permakey.keypoints import ReadoutName
from sb3_permakey.keypoints.readouts import ReadoutSettings
from sb3_permakey.training.presets import ALGORITHMS as OWN_ALGORITHMS
from sb3_permakey.training.presets import PRESETS, AlgorithmName, PresetName, choose_agent, preset_arguments

Settings = dict[str, Any]
AgentName = AlgorithmName | Literal["dqn", "qrdqn", "random"]
Observed = Literal["keypoints", "points", "objects", "pixels", "gray"]

ALGORITHMS: dict[AgentName, type[BaseAlgorithm]] = {
    **OWN_ALGORITHMS,
    "dqn": DQN,
    "qrdqn": QRDQN,
}
STACKED_FRAMES = 4


WITHOUT_MEMORY: Settings = {
    "learning_rate": 1e-4,
    "buffer_size": 100_000,
    "learning_starts": 10_000,
    "train_freq": 4,
    "target_update_interval": 1_000,
    "exploration_fraction": 1.0,
    "exploration_final_eps": 0.1,
    "optimize_memory_usage": True,
    "replay_buffer_kwargs": {"handle_timeout_termination": False},
}
"""DQN's and QRDQN's settings: the paper's schedule of learning and exploration, else RL Zoo's for Atari and SB3's."""


@dataclass(frozen=True)
class Method:
    """One way from frames to actions.

    :param label: its name in tables and pictures
    :param agent: who learns; "random" does not
    :param observes: keypoints; "points": features at other places; "objects": what OCAtari tells of them; RGB pixels;
        or a stack of gray frames
    :param checkpoint: the keypoint method whose checkpoint makes the features
    :param readout: of the keypoints; None for those who take the preset's
    :param encoder: of keypoints
    :param points: where points lie that are no keypoints
    :param read_with: settings of the readout
    :param settings: arguments of its own, to which the presets mean nothing; None: those of the preset, if any
    """

    label: str
    agent: AgentName
    observes: Observed
    checkpoint: KeypointMethod | None = None
    readout: ReadoutName | None = None
    encoder: KeypointEncoder | None = None
    points: Literal["grid", "random", "true"] | None = None
    read_with: ReadoutSettings = field(default_factory=ReadoutSettings)
    settings: Settings | None = None

    @property
    def policy(self) -> str:
        """The policy's name."""
        if self.encoder:
            return "PermaKeyPolicy"
        return "CnnLstmPolicy" if self.agent == "recurrent-dqn" else "CnnPolicy"


def keypoint_methods() -> dict[str, Method]:
    """Keypoint methods with both encoders."""
    kinds: tuple[tuple[str, str, KeypointMethod, ReadoutName], ...] = (
        ("permakey", "PKey", "permakey", "pointnet"),
        ("permakey-peaks", "PKey peaks", "permakey", "peaks"),
        ("transporter", "Transporter", "transporter", "pointnet"),
    )
    encoders: tuple[KeypointEncoder, ...] = ("gnn", "cnn")
    return {
        f"{name}-{encoder}": Method(
            f"{label} + {encoder.upper()}", "recurrent-dqn", "keypoints", checkpoint, readout, encoder
        )
        for name, label, checkpoint, readout in kinds
        for encoder in encoders
    }


METHODS: dict[str, Method] = {
    **keypoint_methods(),
    "permakey-peaks-rainbow": Method(
        "PKey peaks + Rainbow", "rainbow", "keypoints", "permakey", readout="peaks", encoder="pairs"
    ),
    "permakey-student-rainbow": Method(
        "PKey student + Rainbow", "rainbow", "keypoints", "distilled", readout="peaks", encoder="pairs"
    ),
    "permakey-steady-rainbow": Method(
        "PKey steady peaks + Rainbow",
        "rainbow",
        "keypoints",
        "permakey",
        readout="peaks",
        encoder="pairs",
        read_with={"surround_px": 18.0, "persistence": 2.0},
    ),
    "permakey-persistent-rainbow": Method(
        "PKey persistent peaks + Rainbow",
        "rainbow",
        "keypoints",
        "permakey",
        readout="peaks",
        encoder="pairs",
        read_with={"persistence": 2.0},
    ),
    "permakey-peaks-gnn-rainbow": Method(
        "PKey peaks + GNN + Rainbow", "rainbow", "keypoints", "permakey", readout="peaks", encoder="gnn"
    ),
    "permakey-peaks-attention-rainbow": Method(
        "PKey peaks + attention + Rainbow", "rainbow", "keypoints", "permakey", readout="peaks", encoder="attention"
    ),
    "true-positions-gnn": Method(
        "true positions + GNN", "recurrent-dqn", "points", "permakey", encoder="gnn", points="true"
    ),
    "grid-gnn": Method("fixed grid + GNN", "recurrent-dqn", "points", "permakey", encoder="gnn", points="grid"),
    "random-points-gnn": Method(
        "random points + GNN", "recurrent-dqn", "points", "permakey", encoder="gnn", points="random"
    ),
    "true-objects-rainbow": Method("true objects + Rainbow", "rainbow", "objects", encoder="pairs"),
    "recurrent-dqn-pixels": Method("RecurrentDQN on pixels", "recurrent-dqn", "pixels"),
    "dqn-pixels": Method("DQN on pixels", "dqn", "gray"),
    "qrdqn-pixels": Method("QRDQN on pixels", "qrdqn", "gray"),
    "rainbow-pixels": Method("Rainbow on pixels", "rainbow", "gray"),
    "der-pixels": Method("Rainbow on pixels, data-efficient", "rainbow", "gray", settings=DATA_EFFICIENT_RAINBOW),
    "random": Method("random policy", "random", "pixels"),
}
MEMORYLESS = {
    name for name, method in METHODS.items() if method.agent not in OWN_ALGORITHMS or method.settings is not None
}
"""Methods to which the presets mean nothing."""


def preset_of(method_name: str, preset_name: PresetName) -> PresetName | None:
    """A method's preset: the one wished for, where it is one of its algorithm, else its algorithm's first; or none."""
    if method_name in MEMORYLESS:
        return None
    agent: Any = METHODS[method_name].agent
    return preset_name if agent in PRESETS[preset_name].algorithms else choose_agent(agent, None)[1]


def agent_settings(method_name: str, preset_name: str | None, overrides: tuple[str, ...] = ()) -> Settings:
    """The arguments of a method's algorithm beside policy, environment, seed and device.

    :param method_name: of `METHODS`
    :param preset_name: of `PRESETS`; None for methods that have none
    :param overrides: further settings such as "learning_rate=1e-4" or "policy_kwargs.dueling=False"
    :raises ValueError: for an override that is not of this form
    """
    method = METHODS[method_name]
    if method.agent == "random":
        return {}
    settings: Settings = copy.deepcopy(WITHOUT_MEMORY if method.settings is None else method.settings)
    if preset_name is not None:
        settings = preset_arguments(preset_name, method.encoder)
    for override in overrides:
        name, equals, value = override.partition("=")
        *places, last = name.split(".")
        try:
            parsed = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            parsed = value
        if not equals or not all(part.isidentifier() for part in (*places, last)):
            raise ValueError(f"a setting is written like learning_rate=1e-4, not {override!r}")
        place = settings
        for part in places:
            place = place.setdefault(part, {})
        place[last] = parsed
    return settings


def algorithm_of(method_name: str, settings: Settings) -> tuple[type[BaseAlgorithm], Settings]:
    """The algorithm of a method that learns, and its arguments as it takes them.

    A setting "algorithm" names another of `ALGORITHMS` than the method's. A learning rate such as "lin_2e-4" falls from
    there to 0, as in RL Zoo.

    :param method_name: of `METHODS`
    :param settings: of `agent_settings`
    :raises ValueError: for an unknown algorithm, an argument that it does not have, or a learning rate of another form
    """
    arguments = dict(settings)
    name = arguments.pop("algorithm", METHODS[method_name].agent)
    if name not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, not {name!r}")
    algorithm = ALGORITHMS[name]
    known = inspect.signature(algorithm).parameters
    unknown = [argument for argument in arguments if argument not in known]
    if unknown:
        raise ValueError(f"{algorithm.__name__} has no argument {unknown[0]!r}")
    rate = arguments.get("learning_rate")
    if isinstance(rate, str):
        arguments["learning_rate"] = _schedule(rate)
    return algorithm, arguments


def _schedule(rate: str) -> LinearSchedule:
    kind, _, start = rate.partition("_")
    try:
        if kind != "lin":
            raise ValueError
        return LinearSchedule(float(start), 0.0, 1.0)
    except ValueError:
        raise ValueError(f"learning_rate must be a number or like lin_2e-4, not {rate!r}") from None


def readout_of(method: Method, preset_name: str | None) -> ReadoutName:
    """How the detector reads, or whose observations a control imitates."""
    of_preset = PRESETS[preset_name].readout if preset_name else None
    return method.readout or of_preset or "pointnet"
