"""Counts torch's operations and what moves between host and device, where no GPU is needed.

On torch's device "meta", which computes shapes and no values, all that would have to come out of a GPU can be counted:
tensors copied to the host are zeros, and single numbers are 0.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = frozenset(
    {"_unsafe_view", "alias", "as_strided", "detach", "diagonal", "expand", "lift_fresh", "permute", "select", "slice"}
    | {"split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view"}
)
"""Operations that compute nothing and launch nothing."""
DATA_DEPENDENT = frozenset({"nonzero", "masked_select", "unique_consecutive", "_unique2", "repeat_interleave"})
"""The shape of what they give depends on values, so that a GPU's host has to wait for these."""


class Operations(TorchDispatchMode):
    """Counts, while it is entered, what is dispatched.

    ``counts`` has "operations" that compute, "views", copies "to device" and "to host" of whole tensors, and
    "numbers read" and "shapes read" from a device, for each of which the host waits; ``names`` has the operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Count the operation, and do it where it can be done."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        self.names[name] += 1
        if name == "_local_scalar_dense":
            self.counts["numbers read"] += args[0].device.type != "cpu"
            return _number(args[0])
        if name in DATA_DEPENDENT and args[0].device.type != "cpu":
            self.counts["shapes read"] += 1
        if name in ("_to_copy", "copy_"):
            source = args[-1] if name == "copy_" else args[0]
            target = args[0].device if name == "copy_" else torch.device(kwargs.get("device") or source.device)
            if target.type != source.device.type:
                self.counts["to host" if target.type == "cpu" else "to device"] += 1
                if source.is_meta:
                    return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
        self.counts["views" if name in VIEWS else "operations"] += func.namespace == "aten"
        return func(*args, **kwargs)


def _number(tensor: torch.Tensor) -> bool | int | float:
    """A tensor's only value, 0 on a device without values."""
    if not tensor.is_meta:
        return torch.ops.aten._local_scalar_dense(tensor)
    return False if tensor.dtype == torch.bool else 0.0 if tensor.is_floating_point() else 0
