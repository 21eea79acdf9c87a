"""`sb3-permakey train`: an agent on a game or in an environment of one's own."""

from __future__ import annotations

from pathlib import Path

from sb3_permakey.commands.output import name_next, say
from sb3_permakey.training.run import TrainConfig, train
from sb3_permakey.training.run_folder import RUN
from sb3_permakey.training.validation import validation_scores


def run(config: TrainConfig) -> None:
    """Train an agent."""
    best = train(config)
    scores = [mean_score for _, mean_score in validation_scores(config.out)]
    which = f"the agent after {config.steps} steps, not validated"
    if scores:
        which = f"the best agent of {len(scores)} validation(s), mean score {max(scores):.1f}"
    logs = f"; {config.out / 'tensorboard'}: logs" if config.tensorboard else ""
    say(f"{best}: {which}{logs}")
    say(f"{config.out / RUN}: with it the same command goes on to more --steps; {_megabytes(config.out / RUN)} MB")
    checkpoint = ("--checkpoint", config.checkpoint) if config.checkpoint else ()
    out = config.out / "evaluation.json"
    name_next("evaluate", *config.environment.flags, "--agent", best, *checkpoint, "--out", out)


def _megabytes(folder: Path) -> int:
    return round(sum(path.stat().st_size for path in folder.rglob("*")) / 1e6)
