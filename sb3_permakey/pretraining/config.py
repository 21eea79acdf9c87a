"""Settings of a pretraining run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sb3_permakey.keypoints import PermaKeyConfig


@dataclass(frozen=True)
class PretrainConfig:
    """Train a keypoint model on collected frames."""

    frames: Path
    """Folder of frames that `collect` wrote."""
    out: Path
    """Checkpoint to write, e.g. mspacman.safetensors; logs and the state for going on lie beside it."""
    model: PermaKeyConfig = field(default_factory=PermaKeyConfig)
    """Settings of the keypoint model."""
    schedule: Literal["joint", "staged"] = "joint"
    """joint: all three modules side by side (paper). staged: VAE and LSPN first, then frozen, and the PointNet alone on
    stored error maps."""
    batch_size: int = 32
    """Images in a batch."""
    learning_rate: float = 2e-4
    """Adam's learning rate."""
    pointnet_learning_rate: float = 1e-3
    """Adam's learning rate while the PointNet is trained alone (staged)."""
    decay_rate: float = 0.85
    """Factor on the learning rate every `decay_steps` steps."""
    decay_steps: int = 10_000
    """Steps between two such decays."""
    epochs: int = 100
    """Passes through the training frames, of each stage, at most."""
    patience_epochs: int = 10
    """Stop (a stage) when the validation LSPN + PointNet loss has not improved for so many epochs."""
    max_steps: int | None = None
    """Steps of each stage at most."""
    max_minutes: float | None = None
    """Minutes in all at most; of the staged schedule's time the first stage gets `first_stage_share`."""
    first_stage_share: float = 0.7
    """Part of `max_minutes` for VAE and LSPN (staged)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of convolutions; auto is bfloat16 where the machine computes in it."""
    device: str = "auto"
    """Where to train; auto takes a GPU when there is one."""
    save_every_s: float = 60.0
    """Seconds between two saves of the state for going on after a kill."""
    log_every_steps: int = 10
    """Steps between two rows of losses.csv and of the TensorBoard scalars."""
    picture_every_steps: int = 500
    """Steps between two TensorBoard pictures."""
    seed: int = 0
    """Seed of weights, order of frames and latent noise."""

    def __post_init__(self) -> None:
        at_least_one = (
            "batch_size",
            "decay_steps",
            "epochs",
            "patience_epochs",
            "log_every_steps",
            "picture_every_steps",
        )
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "pointnet_learning_rate", "decay_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.out.suffix != ".safetensors":
            raise ValueError(f"out must name a .safetensors file, not {self.out}")
        if not 0 < self.first_stage_share < 1:
            raise ValueError(f"first_stage_share must be between 0 and 1, not {self.first_stage_share}")
