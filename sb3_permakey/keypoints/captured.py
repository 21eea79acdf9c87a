"""What a GPU does at each call as one replay of a CUDA graph, instead of some hundred launches.

For a small network the launches take longer than the work. Updates of agents, their acting and detectors use it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

import torch

WARM_UP = 3
"""Calls that are made as they come before one is captured, in which libraries choose and reserve what they need."""
CHANGES_TOLD = 30
"""So many of them in a row, without a capture, bring a warning."""

Result = TypeVar("Result")


class Capture(Protocol[Result]):
    """What a function did, to be done again."""

    result: Result
    """What it gave; its tensors have new values after each replay."""

    def replay(self) -> None:
        """Do it again."""


class CudaCapture(Generic[Result]):
    """A CUDA graph of what a function does.

    :param function: works on tensors of a GPU that stay where they are, and waits for nothing
    :param pool: memory that it shares with other graphs
    """

    def __init__(self, function: Callable[[], Result], pool: Any) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self.result = function()

    def replay(self) -> None:
        """Launch it."""
        self._graph.replay()


class CudaCaptures:
    """Makes CUDA graphs that share memory, since one is replayed at a time and its result is read before the next."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, function: Callable[[], Result]) -> CudaCapture[Result]:
        """Capture a function."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return CudaCapture(function, self._pool)


class CapturedCall(Generic[Result]):
    """Calls a function of a batch some times, then captures it and replays that with other batches.

    :param function: of a batch; all that changes from call to call but tensors in place must be in the key
    :param most: captures that are kept, for as many keys and shapes; those used last
    :param useless: warning where the key changes so often that nothing is captured; None for none
    :param capture: makes a `Capture` of a function without arguments; for tests without a GPU
    """

    def __init__(
        self,
        function: Callable[[Any], Result],
        *,
        most: int = 1,
        useless: str | None = None,
        capture: Callable[[Callable[[], Result]], Capture[Result]] | None = None,
    ) -> None:
        self._function, self._most, self._useless = function, most, useless
        self._make_capture = capture or CudaCaptures()
        self._known: dict[Hashable, _Known[Result]] = {}
        self._changes = 0

    def __call__(self, batch: Any, key: Hashable = None) -> Result:
        """What the function gives for the batch; of a replay, until the next one.

        :param batch: tensors, in tuples, named tuples and dicts; anything else in it is not seen by the function again
        :param key: what must be as it was when the function was captured
        """
        known = self._of((key, tuple((tensor.shape, tensor.dtype) for tensor in tensors_of(batch))))
        if known.capture is None and known.calls < WARM_UP:
            known.calls += 1
            return self._aside(batch)
        if known.capture is None:
            self._changes = 0
            known.batch = copied = mapped(batch, torch.clone)
            known.capture = self._make_capture(lambda: self._function(copied))
        else:
            torch._foreach_copy_(tensors_of(known.batch), tensors_of(batch))
        known.capture.replay()
        return known.capture.result

    def _of(self, key: Hashable) -> _Known[Result]:
        """What is known of a key, which is now the one used last."""
        if key not in self._known:
            self._note_change()
        known = self._known[key] = self._known.pop(key) if key in self._known else _Known()
        while len(self._known) > self._most:
            del self._known[next(iter(self._known))]
        return known

    def _aside(self, batch: Any) -> Result:
        """The function's result, on a stream of its own where there are streams, as torch asks for before a capture."""
        if not any(tensor.is_cuda for tensor in tensors_of(batch)):
            return self._function(batch)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = self._function(batch)
        torch.cuda.current_stream().wait_stream(stream)
        return result

    def _note_change(self) -> None:
        self._changes += 1
        if self._useless and self._changes == CHANGES_TOLD:
            warnings.warn(self._useless, stacklevel=5)


class _Known(Generic[Result]):
    """Of one key: how often it came, and once captured that, with the batch it reads."""

    calls = 0
    capture: Capture[Result] | None = None
    batch: Any = None


def tensors_of(batch: Any) -> list[torch.Tensor]:
    """The tensors in a batch, always in the same order."""
    found: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    mapped(batch, note)
    return found


def mapped(batch: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same with a function of each tensor in place of it.

    :param batch: a tensor, or tuples, named tuples and dicts of them; anything else stays as it is
    """
    if isinstance(batch, torch.Tensor):
        return function(batch)
    if isinstance(batch, dict):
        return {name: mapped(part, function) for name, part in batch.items()}
    if isinstance(batch, tuple):
        parts = [mapped(part, function) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    return batch
