"""Seconds of one pretraining step, beside the machine's matrix product: python benchmarks/pretraining_step.py

The authors' released TensorFlow code takes 10.8 s for the same step on two cores (facts of the reimplementation).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from sb3_permakey.files import write_json
from sb3_permakey.keypoints import PermaKey, PermaKeyConfig
from sb3_permakey.precision import autocast, keep_freed_memory, place, resolve_device, resolve_precision
from sb3_permakey.provenance import provenance

AUTHORS_S = 10.8
MATRIX_SIZE = 2048


@dataclass(frozen=True)
class StepBenchmark:
    """Time one pretraining step: all three modules, forward, backward and Adam."""

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


def main(config: StepBenchmark) -> None:
    """Measure, print and write."""
    keep_freed_memory()
    torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    model = place(PermaKey(PermaKeyConfig()), device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    images = torch.rand(config.batch_size, 3, 84, 84, device=device).contiguous(memory_format=torch.channels_last)
    noise = torch.randn(config.batch_size, model.config.latent_dim, device=device)

    def step() -> None:
        with autocast(device, precision):
            losses = model.losses(images, noise)
        optimizer.zero_grad(set_to_none=True)
        model.total_loss(losses).backward()
        optimizer.step()

    matrix = torch.rand(MATRIX_SIZE, MATRIX_SIZE, device=device).to(precision)
    step_s = median_s(step, config.repeats, device)
    product_s = median_s(lambda: matrix @ matrix, config.repeats, device)
    result = {
        "step_s": step_s,
        "images_per_s": config.batch_size / step_s,
        "authors_step_s": AUTHORS_S,
        "matrix_product_gflops": 2 * MATRIX_SIZE**3 / product_s / 1e9,
        "batch_size": config.batch_size,
        "threads": config.threads,
        "device": str(device),
        "precision": str(precision).removeprefix("torch."),
        **provenance(),
    }
    write_json(config.out, result)
    print(
        f"one step of {config.batch_size} images, {result['precision']}: {step_s:.3f} s (authors' code: {AUTHORS_S} s)"
    )
    print(f"matrix product on the same threads: {result['matrix_product_gflops']:.0f} GFLOP/s")
    print(config.out)


if __name__ == "__main__":
    main(tyro.cli(StepBenchmark))
