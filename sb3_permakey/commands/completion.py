"""`sb3-permakey completion`: what a shell needs to complete commands and their options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import tyro

Shell: TypeAlias = Literal["bash", "zsh", "fish"]


@dataclass(frozen=True)
class CompletionConfig:
    """Print the script by which a shell completes commands and options.

    bash: sb3-permakey completion bash > ~/.local/share/bash-completion/completions/sb3-permakey

    zsh: sb3-permakey completion zsh > DIR/_sb3-permakey, where DIR is in $fpath

    fish: sb3-permakey completion fish > ~/.config/fish/completions/sb3-permakey.fish
    """

    shell: tyro.conf.Positional[Shell]
    """The shell."""
