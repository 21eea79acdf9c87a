"""An update as one replay of a CUDA graph, instead of some hundred launches for which a small network waits."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

import torch

WARM_UP = 3
"""Updates that are made as they come before one is captured, in which libraries choose and reserve what they need."""
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
    """

    def __init__(self, function: Callable[[], Result]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.result = function()

    def replay(self) -> None:
        """Launch it."""
        self._graph.replay()


class CapturedUpdate(Generic[Result]):
    """Calls a function of a batch some times, then captures it and replays that with other batches.

    :param function: of a batch; all that changes from call to call but tensors in place must be in the key
    :param capture: makes a `Capture` of a function without arguments; for tests without a GPU
    """

    def __init__(
        self,
        function: Callable[[Any], Result],
        capture: Callable[[Callable[[], Result]], Capture[Result]] = CudaCapture,
    ) -> None:
        self._function, self._make_capture = function, capture
        self._key: Hashable = None
        self._calls = self._changes = 0
        self._capture: Capture[Result] | None = None
        self._batch: Any = None

    def __call__(self, batch: Any, key: Hashable) -> Result:
        """What the function gives for the batch; of a replay, until the next one.

        :param batch: tensors, in tuples, named tuples and dicts; anything else in it is not seen by the function again
        :param key: what must be as it was when the function was captured: where it is not, all begins anew
        """
        key = (key, tuple((tensor.shape, tensor.dtype) for tensor in tensors_of(batch)))
        if key != self._key:
            self._note_change()
            self._key, self._calls, self._capture = key, 0, None
        if self._capture is None and self._calls < WARM_UP:
            self._calls += 1
            return self._aside(batch)
        if self._capture is None:
            self._changes = 0
            self._batch = mapped(batch, torch.clone)
            self._capture = self._make_capture(lambda: self._function(self._batch))
        else:
            torch._foreach_copy_(tensors_of(self._batch), tensors_of(batch))
        self._capture.replay()
        return self._capture.result

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
        if self._changes == CHANGES_TOLD:
            warnings.warn(
                "cuda_graph=True is of no use here: the learning rate, the discount or n changes with every update, so "
                "that none can be replayed. Give constants, or leave cuda_graph out.",
                stacklevel=4,
            )


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
