"""`sb3-permakey evaluate`: whole games by a trained agent and by the random policy."""

from __future__ import annotations

from sb3_permakey.commands.output import say
from sb3_permakey.play.evaluation import EvaluateConfig, evaluate, score_table


def run(config: EvaluateConfig) -> None:
    """Evaluate an agent."""
    result = evaluate(config)
    say(f"{config.out}: every game's score" + (f"; {config.video}: the first game" if config.video else ""))
    say(score_table(result))
