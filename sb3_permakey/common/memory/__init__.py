"""Memory cells, by name or by class.

A cell of your own is a subclass of `MemoryCell` with a constructor (inputs, units, layers), its `outputs` and
`state_shape`, and `window`. Give the class to an agent, or a name once it stands in `MEMORY_CELLS`:

    RecurrentDQN("MlpLstmPolicy", env, policy_kwargs=dict(rnn_type=MyCell))
    Rainbow("MlpPolicy", env, memory=MyCell)
"""

from __future__ import annotations

from sb3_permakey.common.memory.cell import MemoryCell, States, stacked, unstacked
from sb3_permakey.common.memory.gated import GRUMemory, LSTMMemory
from sb3_permakey.common.memory.min_gru import MinGRU
from sb3_permakey.common.memory.none import NoMemory

__all__ = [
    "MEMORY_CELLS",
    "GRUMemory",
    "LSTMMemory",
    "Memory",
    "MemoryCell",
    "MinGRU",
    "NoMemory",
    "States",
    "memory_cell",
    "stacked",
    "unstacked",
]

Memory = str | type[MemoryCell]
"""A name of `MEMORY_CELLS`, or a class."""
MEMORY_CELLS: dict[str, type[MemoryCell]] = {
    "lstm": LSTMMemory,
    "gru": GRUMemory,
    "mingru": MinGRU,
    "none": NoMemory,
}
"""Cells by name; others may be added."""


def memory_cell(memory: Memory, argument: str = "rnn_type") -> type[MemoryCell]:
    """The cell's class.

    :param memory: its name, or the class itself
    :param argument: what the message calls it
    :raises ValueError: if it is neither
    """
    if isinstance(memory, type) and issubclass(memory, MemoryCell):
        return memory
    if isinstance(memory, str) and memory in MEMORY_CELLS:
        return MEMORY_CELLS[memory]
    raise ValueError(f"{argument} must be one of {sorted(MEMORY_CELLS)} or a MemoryCell's class, got {memory!r}.")
