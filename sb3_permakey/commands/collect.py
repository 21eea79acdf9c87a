"""`sb3-permakey collect`: frames of a game or of an environment of one's own."""

from __future__ import annotations

from sb3_permakey.commands.output import name_next, say
from sb3_permakey.play.collect import CollectConfig, collect


def run(config: CollectConfig) -> None:
    """Collect frames."""
    store = collect(config)
    sizes = ", ".join(f"{len(frames)} {split}" for split, frames in store.splits.items())
    say(f"{config.out}: {len(store.episodes)} episodes of {store.game} ({sizes})")
    checkpoint = f"{config.environment.file_name.lower()}.safetensors"
    name_next("pretrain", "--preset", "strong", "--frames", config.out, "--out", checkpoint)
