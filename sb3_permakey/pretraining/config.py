"""Settings of a pretraining run: the papers', and a preset that takes an hour."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias

from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.keypoints import MODELS, KeypointModel, PermaKeyConfig
from sb3_permakey.settings import (
    NO_DEFAULT,
    require_at_least,
    require_choice,
    require_one,
    require_positive,
    require_seed,
    require_suffix,
)


class Optimisation(NamedTuple):
    """How a paper trains its method."""

    batch_size: int
    """Images, or pairs of images, in a batch."""
    learning_rate: float
    """Adam's learning rate."""
    decay_rate: float
    """Factor on the learning rate every `decay_steps` steps."""
    decay_steps: int
    """Steps between two such decays."""
    patience_epochs: int
    """Epochs without improvement after which training stops."""


class Method(NamedTuple):
    """What a run of a method does, whose model is that of `MODELS`."""

    optimisation: Optimisation
    """What empty settings stand for."""
    in_stages: bool = False
    """Whether parts of the model can be trained on their own, while the others stay as they are."""
    on_pairs: bool = False
    """Whether it learns from pairs of frames."""


METHODS = {
    "permakey": Method(Optimisation(32, 2e-4, 0.85, 10_000, 10), in_stages=True),
    "transporter": Method(Optimisation(64, 5e-4, 0.9, 30_000, 5), on_pairs=True),
}
"""The methods that can be trained, with the papers' settings (appendix A.2.1 and A.2.2)."""
MethodName: TypeAlias = Literal["permakey", "transporter"] | str
"""A key of `METHODS`; those that come with the package are spelled out for the command line's help."""


@dataclass(frozen=True)
class PretrainConfig:
    """Train a keypoint model on collected frames; flags from --batch-size on are rarely needed."""

    out: Path
    """Checkpoint to write, e.g. mspacman.safetensors; logs and the state for going on lie beside it."""
    frames: Annotated[Path | None, NO_DEFAULT] = None
    """Folder of frames that `collect` or `record_frames` wrote."""
    preset: Literal["paper", "strong"] = "paper"
    """What all other flags are by default. paper: the paper's, up to 100 passes of 40 minutes on two cores.
    strong: the shipped checkpoints', an hour on one core; its values: --preset strong --help."""
    game: Annotated[str | None, NO_DEFAULT] = None
    """Without frames: the game whose random play is collected beside the checkpoint, e.g. MsPacman."""
    env: Annotated[str | None, NO_DEFAULT] = field(default=None, kw_only=True)
    """The same of your own environment, module:function, or an id of gymnasium's."""
    collect_frames: int = 95_000
    """Frames to collect then (paper: 85,000 + 5,000 + 5,000)."""
    method: MethodName = "permakey"
    """permakey: keypoints where local prediction fails. transporter: the baseline, trained on pairs of frames."""
    schedule: Literal["joint", "staged"] = "joint"
    """joint: all modules side by side (paper). staged: VAE and LSPN first, then the PointNet alone."""
    max_steps: Annotated[int | None, NO_DEFAULT] = None
    """Steps of each stage at most."""
    pointnet_steps: Annotated[int | None, NO_DEFAULT] = None
    """The same of the stage that trains the PointNet alone."""
    max_minutes: Annotated[float | None, NO_DEFAULT] = None
    """Minutes in all at most."""
    device: str = "auto"
    """Where to train; auto takes a GPU when there is one."""
    seed: int = 0
    """Seed of all that is random."""
    score: bool = True
    """Score keypoints against a game's objects at the end, where OCAtari is installed."""
    batch_size: Annotated[int | None, NO_DEFAULT] = None
    """Images in a batch, or pairs (paper: 32, or 64)."""
    frozen_from: Annotated[Path | None, NO_DEFAULT] = None
    """Checkpoint whose VAE and LSPN are taken as they are."""
    distractor: Annotated[DistractorKind | None, NO_DEFAULT] = None
    """Bars of noisy Atari, drawn on clean frames."""
    lspn_stride: int = 1
    """The LSPN learns from every n-th image."""
    learning_rate: Annotated[float | None, NO_DEFAULT] = None
    """Adam's (paper: 2e-4; the transporter's: 5e-4)."""
    pointnet_learning_rate: float = 1e-3
    """Of the PointNet alone (staged)."""
    decay_rate: Annotated[float | None, NO_DEFAULT] = None
    """Factor on it every decay_steps (paper: 0.85, 0.9)."""
    decay_steps: Annotated[int | None, NO_DEFAULT] = None
    """Steps between decays (paper: 1e4; transporter: 3e4)."""
    max_pair_distance: int = 100
    """Most frames between a pair's images."""
    epochs: int = 100
    """Passes through the frames at most."""
    patience_epochs: Annotated[int | None, NO_DEFAULT] = None
    """Stop a stage when the validation loss has not improved for so many epochs (paper: 10 and 5)."""
    first_stage_share: float = 0.7
    """VAE's and LSPN's part of max_minutes."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where it is quick."""
    compile: bool = False
    """Compile the losses at first; for a GPU."""
    save_every_s: float = 60.0
    """Seconds between saves of the state."""
    log_every_steps: int = 10
    """Steps between two rows of losses.csv."""
    picture_every_steps: int = 500
    """Steps between two pictures."""
    model: PermaKeyConfig = field(default_factory=PermaKeyConfig)
    """Settings of the keypoint model; the transporter takes num_keypoints, window_std, image_channels and softmax."""

    def __post_init__(self) -> None:
        if self.preset != type(self).preset:
            raise ValueError(f"the settings of the preset {self.preset!r} are a {PRESETS[self.preset].__name__}")
        require_choice(tuple(METHODS), method=self.method)
        require_one(frames=self.frames, game=self.game, env=self.env)
        require_at_least(
            1,
            collect_frames=self.collect_frames,
            batch_size=self.batch_size,
            lspn_stride=self.lspn_stride,
            decay_steps=self.decay_steps,
            max_pair_distance=self.max_pair_distance,
            epochs=self.epochs,
            patience_epochs=self.patience_epochs,
            max_steps=self.max_steps,
            pointnet_steps=self.pointnet_steps,
            log_every_steps=self.log_every_steps,
            picture_every_steps=self.picture_every_steps,
        )
        require_positive(
            learning_rate=self.learning_rate,
            pointnet_learning_rate=self.pointnet_learning_rate,
            decay_rate=self.decay_rate,
            max_minutes=self.max_minutes,
        )
        if self.frames is None and self.optimisation.batch_size > self.collect_frames:
            raise ValueError(f"collect_frames must be at least a batch of {self.optimisation.batch_size}")
        require_at_least(0, save_every_s=self.save_every_s)
        require_seed(self.seed)
        require_suffix(".safetensors", out=self.out)
        if not 0 < self.first_stage_share < 1:
            raise ValueError(f"first_stage_share must be between 0 and 1, not {self.first_stage_share}")
        staged = self.schedule == "staged" or self.frozen_from or self.lspn_stride > 1
        if staged and not METHODS[self.method].in_stages:
            raise ValueError(f"staged, frozen_from and lspn_stride are permakey's: the {self.method} has one stage")
        self._require_use()

    def _require_use(self) -> None:
        """Raise ValueError for a setting that is given and that this run would not read."""
        given = {one.name for one in fields(self) if getattr(self, one.name) != getattr(type(self), one.name, None)}
        alone, staged = self.frozen_from is not None, self.schedule == "staged"
        useless = {
            "collect_frames": ("frames are collected", self.frames is not None),
            "max_pair_distance": ("the transporter is trained", not METHODS[self.method].on_pairs),
            "pointnet_learning_rate": ("the PointNet is trained alone", not (alone or staged)),
            "pointnet_steps": ("the PointNet is trained alone", not (alone or staged)),
            "first_stage_share": ("max_minutes are shared by two stages", alone or not staged or not self.max_minutes),
            "learning_rate": ("VAE and LSPN are trained", alone),
        }
        for name, (when, is_useless) in useless.items():
            if name in given and is_useless:
                raise ValueError(f"{name} is only read where {when}")
        for one in fields(self.model):
            if one.name not in self._of_model and getattr(self.model, one.name) != one.default:
                raise ValueError(f"{one.name} is permakey's: the {self.method} has no use for it")

    @property
    def optimisation(self) -> Optimisation:
        """The method's optimisation, the paper's where no setting says otherwise."""
        chosen = {name: getattr(self, name) for name in Optimisation._fields}
        return METHODS[self.method].optimisation._replace(
            **{name: value for name, value in chosen.items() if value is not None}
        )

    @property
    def frames_folder(self) -> Path:
        """Where the frames are, or will be collected."""
        return self.frames or self.out.with_suffix(".frames")

    def make_model(self) -> KeypointModel:
        """The method's model with fresh weights."""
        kind = MODELS[self.method]
        return kind(kind.config_class(**{name: getattr(self.model, name) for name in self._of_model}))

    @property
    def _of_model(self) -> list[str]:
        """The settings of `model` that the method's model has."""
        known = {one.name for one in fields(self.model)}
        return [one.name for one in fields(MODELS[self.method].config_class) if one.name in known]


@dataclass(frozen=True)
class StrongPretrainConfig(PretrainConfig):
    """Train a PermaKey model as the package's own checkpoints were, on frames that are already collected or not.

    VAE and LSPN first, on fewer frames, then the PointNet, whose softmax is over the whole map and who sees the root of
    the error maps; benchmarks/results/variants.md and keypoints.md have the figures.
    """

    preset: Literal["paper", "strong"] = "strong"
    collect_frames: int = 16_000
    model: PermaKeyConfig = field(default_factory=lambda: PermaKeyConfig(softmax="plane", map_power=0.5))
    schedule: Literal["joint", "staged"] = "staged"
    lspn_stride: int = 4
    max_steps: int | None = 1_500
    pointnet_steps: int | None = 8_000

    def __post_init__(self) -> None:
        require_choice(tuple(METHODS), method=self.method)
        if not METHODS[self.method].in_stages:
            raise ValueError(
                "the strong preset is permakey's; the transporter has --softmax plane --max-steps 4000 to match it"
            )
        super().__post_init__()


PRESETS: dict[str, type[PretrainConfig]] = {"paper": PretrainConfig, "strong": StrongPretrainConfig}
