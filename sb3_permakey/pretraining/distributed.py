"""Several processes that train one model: started by torchrun, each on its part of every batch."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

# Its functions' defaults name the group: imported after the start, as DistributedDataParallel does, they would hold it.
import torch.distributed.nn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


class Workers:
    """The processes of this run; one process alone when torchrun did not start it.

    :param device: where this process computes
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if "WORLD_SIZE" in os.environ and not dist.is_initialized():
            if device.type == "cuda":
                self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
                torch.cuda.set_device(self.device)
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.count = dist.get_world_size() if dist.is_initialized() else 1

    @property
    def is_first(self) -> bool:
        """True in the process that writes files and talks."""
        return self.rank == 0

    def shard(self, batch: np.ndarray) -> np.ndarray:
        """This process's part of a batch, contiguous, as long as every other's."""
        size = len(batch) // self.count
        return batch[self.rank * size : (self.rank + 1) * size]

    def agree(self, value: bool) -> bool:
        """The first process's value, in all of them."""
        if self.count == 1:
            return value
        flag = torch.tensor([float(value)], device=self.device)
        dist.broadcast(flag, src=0)
        return bool(flag.item())

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes of a tensor that needs no gradient."""
        if self.count > 1:
            dist.all_reduce(values)
        return values / self.count

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def wrap(self, model: nn.Module, compute: Callable[..., Any]) -> Callable[..., Any]:
        """`compute`, through DistributedDataParallel over the model's parameters that learn, if there are several."""
        if self.count == 1:
            return compute
        return DistributedDataParallel(LossModule(model, compute))

    def leave(self) -> None:
        """End the group, once all processes have come so far; one that goes early can bring the others down."""
        if dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()
            # What still holds on to the group must go before the interpreter, which its threads would else bring down.
            gc.collect()


class LossModule(nn.Module):
    """A function of a model as a module, which DistributedDataParallel asks for.

    :param model: whose parameters learn
    :param compute: what is called
    """

    def __init__(self, model: nn.Module, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self.compute = compute

    def forward(self, *inputs: Tensor) -> Any:
        """Call the function."""
        return self.compute(*inputs)


class SumOverWorkers(torch.autograd.Function):
    """Sum over all processes; so is its gradient, as every process's loss depends on the sum."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        """The sum of the processes' values."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """The sum of the processes' gradients."""
        return SumOverWorkers.forward(context, gradient)


class SharedBatchNorm(_BatchNorm):
    """BatchNorm over the batches of all processes, on any device; torch's SyncBatchNorm runs on GPUs alone."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, not {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise by the mean and variance over all processes."""
        if not self.training:
            return super().forward(input)
        values = input if input.dtype == torch.float64 else input.float()
        axes = [axis for axis in range(values.dim()) if axis != 1]
        shape = [1, -1] + [1] * (values.dim() - 2)
        count = values.numel() // values.shape[1] * dist.get_world_size()
        mean = SumOverWorkers.apply(values.sum(axes)) / count
        centred = values - mean.view(shape)
        variance = SumOverWorkers.apply(centred.square().sum(axes)) / count
        with torch.no_grad():
            assert self.num_batches_tracked is not None
            assert self.running_mean is not None
            assert self.running_var is not None
            self.num_batches_tracked.add_(1)
            momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / max(count - 1, 1), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return torch.addcmul(self.bias.view(shape), centred, scale.view(shape)).to(input.dtype)


def share_batch_norm(module: nn.Module) -> None:
    """Replace every BatchNorm inside a module by one over all processes; parameters and buffers stay the same."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            shared = SharedBatchNorm(child.num_features, child.eps, child.momentum)
            for key in ("weight", "bias"):
                setattr(shared, key, getattr(child, key))
            for key in ("running_mean", "running_var", "num_batches_tracked"):
                shared.register_buffer(key, getattr(child, key))
            setattr(module, name, shared.train(child.training))
        else:
            share_batch_norm(child)
