"""Seconds of one pretraining step, beside the machine's matrix product: python -m benchmarks.speed pretraining-step

The authors' released TensorFlow code takes 10.8 s for the same step on two cores (facts of the reimplementation).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness.command import run_command
from sb3_permakey.files import write_json
from sb3_permakey.keypoints import PermaKey, PermaKeyConfig, Transporter
from sb3_permakey.keypoints.device import autocast, freed_memory_kept, place, resolve_device, resolve_precision
from sb3_permakey.provenance import provenance

AUTHORS_S = 10.8
MATRIX_SIZE = 2048


@dataclass(frozen=True)
class StepBenchmark:
    """Time one pretraining step of each kind: forward, backward and Adam."""

    batch_size: int = 32
    """Images in a batch."""
    repeats: int = 20
    """Timed steps; the median counts."""
    threads: int = 2
    """CPU threads."""
    precision: str = "auto"
    """auto, float32 or bfloat16."""
    device: str = "auto"
    """Where to compute."""
    out: Path = Path("benchmarks/results/pretraining_step.json")
    """JSON file to write."""


def median_s(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median seconds of a call, after three calls to warm up."""
    times = []
    for index in range(repeats + 3):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if index >= 3:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


@freed_memory_kept()
def main(config: StepBenchmark) -> None:
    """Measure, print and write."""
    torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    model = place(PermaKey(PermaKeyConfig()), device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    transporter = place(Transporter(), device)
    transporter_optimizer = torch.optim.Adam(transporter.parameters(), lr=5e-4)
    images = torch.rand(config.batch_size, 3, 84, 84, device=device).contiguous(memory_format=torch.channels_last)
    noise = torch.randn(config.batch_size, model.config.latent_dim, device=device)
    maps = [torch.rand(config.batch_size, size, size, device=device) for size in model.error_map_sizes]

    def update(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        def step() -> None:
            with autocast(device, precision):
                value = loss()
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()

        return step

    def all_modules(lspn_stride: int) -> Callable[[], Tensor]:
        return lambda: model.total_loss(model.losses(images, noise, lspn_stride=lspn_stride))

    def without_pointnet() -> Tensor:
        return model.total_loss(model.losses(images, noise, with_pointnet=False, lspn_stride=4))

    matrix = torch.rand(MATRIX_SIZE, MATRIX_SIZE, device=device).to(precision)
    steps = {
        "all modules, LSPN on every image": update(all_modules(1), optimizer),
        "all modules, LSPN on every 2nd image": update(all_modules(2), optimizer),
        "all modules, LSPN on every 4th image": update(all_modules(4), optimizer),
        "VAE and LSPN on every 4th image": update(without_pointnet, optimizer),
        "PointNet alone": update(lambda: model.pointnet_loss(maps), optimizer),
        "Transporter": update(lambda: transporter.losses(images, images.flip(0)).reconstruction, transporter_optimizer),
    }
    step_s = {name: median_s(step, config.repeats, device) for name, step in steps.items()}
    product_s = median_s(lambda: matrix @ matrix, config.repeats, device)
    result = {
        "step_s": step_s,
        "authors_step_s": AUTHORS_S,
        "matrix_product_gflops": 2 * MATRIX_SIZE**3 / product_s / 1e9,
        "batch_size": config.batch_size,
        "threads": config.threads,
        "device": str(device),
        "precision": str(precision).removeprefix("torch."),
        **provenance(),
    }
    write_json(config.out, result)
    print(f"steps of {config.batch_size} images, {result['precision']} (authors' code, all modules: {AUTHORS_S} s)")
    for name, seconds in step_s.items():
        print(f"  {name:<38}{seconds:.3f} s")
    print(f"matrix product on the same threads: {result['matrix_product_gflops']:.0f} GFLOP/s")
    print(config.out)


def command() -> None:
    """The command line."""
    run_command("speed.pretraining_step", StepBenchmark, main)


if __name__ == "__main__":
    command()
