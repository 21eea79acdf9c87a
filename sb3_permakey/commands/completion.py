"""`sb3-permakey completion`: what a shell needs to complete commands and their options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import tyro

Shell: TypeAlias = Literal["bash", "zsh"]


@dataclass(frozen=True)
class CompletionConfig:
    """Print the script by which a shell completes commands and options; docs/install.md says where it goes."""

    shell: tyro.conf.Positional[Shell]
    """The shell."""
