"""Keypoints a second on frames of play: python benchmarks/detector_speed.py --frames runs/frames

The frames of each game lie in a folder of its name, as `sb3-permakey collect` writes them. A game's own checkpoint is
used where one comes with the package, else another's: speed does not depend on the weights.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from sb3_permakey.files import write_json
from sb3_permakey.keypoints import KeypointDetector, checkpoint_exists
from sb3_permakey.keypoints.folded import FoldedLSPN, FoldedPermaKey
from sb3_permakey.keypoints.layers import ENCODER
from sb3_permakey.keypoints.trunk import FoldedConvolutions
from sb3_permakey.precision import keep_freed_memory
from sb3_permakey.pretraining.frames import FrameStore
from sb3_permakey.provenance import provenance

AUTHORS_FRAMES_PER_S = {1: 9.7, 32: 22.9}
"""The released TensorFlow code on two cores, by batch size."""
MATRIX_SIZE = 1024


@dataclass(frozen=True)
class SpeedBenchmark:
    """Time detectors, one after another on the same frames, over and over."""

    frames: Path
    """Folder with a frame store for each game."""
    games: tuple[str, ...] = ("mspacman", "seaquest", "spaceinvaders", "battlezone")
    """Names of the stores."""
    checkpoint: str = "mspacman"
    """For games without a checkpoint of their own."""
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    """Consecutive frames in a call."""
    warm_up_frames: int = 1000
    """Frames of play that streaming detectors see before they are timed."""
    rounds: int = 10
    """Times that every detector is timed; the median counts, the best is kept beside it."""
    frames_a_round: int = 64
    """Frames for which a streaming detector is timed in a round; a dense one takes one batch."""
    threads: int = 2
    """CPU threads."""
    out: Path = Path("benchmarks/results/detector_speed.json")
    """JSON file to write."""


def matrix_product_gflops(precision: torch.dtype, repeats: int = 10) -> float:
    """Best rate of a square matrix product, in GFLOP/s."""
    matrix = torch.rand(MATRIX_SIZE, MATRIX_SIZE).to(precision)
    return 2 * MATRIX_SIZE**3 / min(seconds(lambda: matrix @ matrix) for _ in range(repeats)) / 1e9


def copy_gbytes_per_s(repeats: int = 10) -> float:
    """Best rate of a copy too large for the caches, bytes read and written, in GB/s."""
    source = torch.rand(2**26)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source)) for _ in range(repeats)) / 1e9


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def needed_modules(detector: KeypointDetector) -> tuple[list[FoldedConvolutions], list[FoldedLSPN]]:
    """Convolutions and LSPN layers of a PermaKey that its readout needs: peaks read the first error map alone."""
    network = detector.network
    assert isinstance(network, FoldedPermaKey)
    lspns = [lspn for lspn in network.lspns if isinstance(lspn, FoldedLSPN)]
    if detector.readout.readout == "peaks":
        return [network.trunk], lspns[:1]
    return [network.trunk, network.pointnet], lspns


def flops_per_frame(detector: KeypointDetector, patches: list[float] | None = None, new_frames: float = 1) -> float:
    """Multiplications and additions for one frame.

    :param detector: of a PermaKey
    :param patches: patches computed of each LSPN layer; None: all
    :param new_frames: share of frames that are not remembered as a whole
    """
    stacks, lspns = needed_modules(detector)
    map_sizes = ENCODER.map_sizes()
    total = 0.0
    for convolutions in stacks:
        for index in range(len(convolutions.strides)):
            total += new_frames * 2 * map_sizes[index] ** 2 * convolutions.get_buffer(f"kernel_{index}").numel()
    for index, lspn in enumerate(lspns):
        side = -(-map_sizes[detector.config.layers[index]] // lspn.patch_size)
        weights = sum(tensor.numel() for name, tensor in lspn.named_buffers() if name.endswith("weight"))
        total += 2 * weights * (side**2 if patches is None else patches[index])
    return total


def bytes_per_frame(detector: KeypointDetector, batch_size: int, new_frames: float = 1) -> float:
    """Bytes that the convolutions and the LSPN cannot do without: weights once a call, maps written and read once.

    :param detector: of a PermaKey
    :param batch_size: frames in a call
    :param new_frames: share of frames that are not remembered as a whole
    """
    stacks, lspns = needed_modules(detector)
    weights = sum(tensor.nbytes for module in (*stacks, *lspns) for tensor in module.buffers())
    map_values = [size**2 * filters for size, filters in zip(ENCODER.map_sizes(), ENCODER.filters, strict=True)]
    maps = sum(sum(map_values[: len(stack.strides)]) for stack in stacks)
    return new_frames * (weights / batch_size + 2 * 4 * maps)


def computed_so_far(detector: KeypointDetector) -> list[int]:
    """What a streaming detector has computed: whole frames, and patches of each LSPN layer."""
    assert isinstance(detector.network, FoldedPermaKey)
    assert detector.memory is not None
    return [detector.memory.detected, *(memory.computed for _, memory in detector.network.memories)]


def time_detection(detector: KeypointDetector, frames: np.ndarray, batch_size: int) -> float:
    """Seconds for the keypoints of frames, detected in batches of consecutive ones."""
    batches = [frames[start : start + batch_size] for start in range(0, len(frames), batch_size)]
    return seconds(lambda: [detector.detect(batch) for batch in batches])


def time_game(config: SpeedBenchmark, game: str) -> list[dict[str, Any]]:
    """A row for each kind of detector and batch size."""
    frames = FrameStore(config.frames / game).splits["train"]
    needed = config.warm_up_frames + config.rounds * config.frames_a_round
    if len(frames) < needed:
        raise ValueError(f"{config.frames / game} holds {len(frames)} frames of training, fewer than {needed}")
    checkpoint = game if checkpoint_exists(game) else config.checkpoint
    rows = [
        {"game": game, "checkpoint": checkpoint, "detector": name, "batch_size": batch_size} | settings
        for name, settings in (
            ("dense", {"precision": "float32"}),
            ("dense", {"precision": "bfloat16"}),
            ("streaming", {"precision": "float32"}),
            ("streaming, peaks", {"precision": "float32", "readout": "peaks"}),
        )
        for batch_size in config.batch_sizes
    ]
    detectors = []
    for row in rows:
        streaming = row["detector"] != "dense"
        detector = KeypointDetector(
            checkpoint, precision=row["precision"], readout=row.get("readout"), streaming=streaming, device="cpu"
        )
        for start in range(0, config.warm_up_frames if streaming else 1, 32):
            detector.detect(frames[start : start + (32 if streaming else 1)])
        detectors.append(detector)
    timed: list[list[float]] = [[] for _ in rows]
    before = [computed_so_far(detector) if detector.streaming else [] for detector in detectors]
    start = config.warm_up_frames
    for _ in range(config.rounds):
        part = np.array(frames[start : start + config.frames_a_round])
        for row, detector, times in zip(rows, detectors, timed, strict=True):
            timed_frames = part if detector.streaming else part[: row["batch_size"]]
            times.append(time_detection(detector, timed_frames, row["batch_size"]) / len(timed_frames))
        start += config.frames_a_round
    for row, detector, times, earlier in zip(rows, detectors, timed, before, strict=True):
        row |= {"frames_per_s": 1 / statistics.median(times), "best_frames_per_s": 1 / min(times)}
        if detector.streaming:
            played = config.rounds * config.frames_a_round
            counts = zip(computed_so_far(detector), earlier, strict=True)
            row["new_frames_share"], *row["new_patches_per_frame"] = ((now - then) / played for now, then in counts)
        new_frames = row.get("new_frames_share", 1)
        row["gflop_per_frame"] = flops_per_frame(detector, row.get("new_patches_per_frame"), new_frames) / 1e9
        row["gbytes_per_frame"] = bytes_per_frame(detector, row["batch_size"], new_frames) / 1e9
    return rows


def measure(config: SpeedBenchmark) -> dict[str, Any]:
    """Rows of all games, each with what arithmetic and memory traffic take at the least on this machine."""
    gflops = {name: matrix_product_gflops(getattr(torch, name)) for name in ("float32", "bfloat16")}
    bandwidth = copy_gbytes_per_s()
    rows = [row for game in config.games for row in time_game(config, game)]
    for row in rows:
        row["arithmetic_ms"] = 1000 * row["gflop_per_frame"] / gflops[row["precision"]]
        row["traffic_ms"] = 1000 * row["gbytes_per_frame"] / bandwidth
    return {
        "rows": rows,
        "authors_frames_per_s": AUTHORS_FRAMES_PER_S,
        "matrix_product_gflops": gflops,
        "copy_gbytes_per_s": bandwidth,
    }


def main(config: SpeedBenchmark) -> None:
    """Measure, print and write."""
    keep_freed_memory()
    torch.set_num_threads(config.threads)
    result = measure(config)
    rows, gflops = result["rows"], result["matrix_product_gflops"]
    settings = {"threads": config.threads, "warm_up_frames": config.warm_up_frames}
    write_json(config.out, {**result, **settings, **provenance()})
    print("frames/s (authors' code: " + ", ".join(f"{n} frame(s) {r}" for n, r in AUTHORS_FRAMES_PER_S.items()) + ")")
    for row in rows:
        print(
            f"  {row['game']:<16}{row['detector']:<18}{row['precision']:<10}{row['batch_size']:>3} frame(s)"
            f"{row['frames_per_s']:>8.1f} (best {row['best_frames_per_s']:.1f}), "
            f"arithmetic alone {1000 / row['arithmetic_ms']:.1f}"
        )
    print(f"matrix product: {gflops['float32']:.0f} GFLOP/s float32, {gflops['bfloat16']:.0f} bfloat16")
    print(config.out)


if __name__ == "__main__":
    main(tyro.cli(SpeedBenchmark))
