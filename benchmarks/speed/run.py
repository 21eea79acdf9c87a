"""How fast all is: python -m benchmarks.speed throughput, and parts of it alone."""

from __future__ import annotations

from benchmarks.harness.command import run_one_of
from benchmarks.speed import agents, cnn, detectors, gpu, memory, noisy, pretraining_step, rainbow, throughput, updates


def command() -> None:
    """The command line."""
    run_one_of(
        "speed",
        {
            "throughput": (throughput.ThroughputBenchmark, throughput.main),
            "agents": (agents.SpeedBenchmark, agents.main),
            "detectors": (detectors.SpeedBenchmark, detectors.main),
            "memory": (memory.MemorySpeed, memory.main),
            "rainbow": (rainbow.RainbowSpeed, rainbow.main),
            "cnn": (cnn.CnnSpeed, cnn.main),
            "noisy": (noisy.NoisySpeed, noisy.main),
            "gpu": (gpu.GpuSpeed, gpu.main),
            "updates": (updates.UpdatesBenchmark, updates.main),
            "pretraining-step": (pretraining_step.StepBenchmark, pretraining_step.main),
        },
        "How fast keypoints, agents and pretraining are.",
    )
