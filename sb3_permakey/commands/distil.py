"""`sb3-permakey distil`: a small detector that finds what a trained one finds, in a fraction of the time."""

from __future__ import annotations

from sb3_permakey.commands.output import name_next, say
from sb3_permakey.pretraining import distillation
from sb3_permakey.pretraining.distillation import DistilConfig


def run(config: DistilConfig) -> None:
    """Train a student."""
    checkpoint = distillation.distil(config)
    say(f"{checkpoint}: distilled model; {checkpoint.with_suffix('.pretraining')}: losses.csv and TensorBoard logs")
    name_next("show", "--checkpoint", checkpoint, "--frames", config.frames, "--readout", "peaks", "--out", "peaks.png")
