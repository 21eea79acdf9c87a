"""Keypoints a second on frames of play: python -m benchmarks.speed detectors --frames runs/frames

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

from benchmarks.harness.command import run_command
from sb3_permakey.files import write_json
from sb3_permakey.frames.store import FrameStore
from sb3_permakey.keypoints import KeypointDetector, checkpoint_exists
from sb3_permakey.keypoints.device import freed_memory_kept
from sb3_permakey.keypoints.distilled import FoldedDistilled
from sb3_permakey.keypoints.folded import FoldedLSPN, FoldedPermaKey
from sb3_permakey.keypoints.layers import ENCODER
from sb3_permakey.keypoints.readouts import PeaksReadout, PointNetReadout
from sb3_permakey.keypoints.shipped import OF_TEACHER
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
    checkpoint: str = "mspacman-teacher"
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


@dataclass(frozen=True)
class Computed:
    """What a detector of a PermaKey computes."""

    frames: float
    """Frames; a streaming detector remembers some as a whole."""
    cells: list[float]
    """Cells of each layer of the trunk."""
    patches: list[float]
    """Patches of each layer of the LSPN."""

    def since(self, earlier: Computed, frames: int) -> Computed:
        """What was computed for each of so many frames since then."""
        cells, patches = (
            [(now - then) / frames for now, then in zip(after, before, strict=True)]
            for after, before in ((self.cells, earlier.cells), (self.patches, earlier.patches))
        )
        return Computed((self.frames - earlier.frames) / frames, cells, patches)


def network_of(detector: KeypointDetector) -> FoldedPermaKey:
    """A PermaKey's folded network."""
    assert isinstance(detector.network, FoldedPermaKey)
    return detector.network


def needed_lspns(detector: KeypointDetector) -> list[FoldedLSPN]:
    """LSPN layers that the readout needs: peaks read the first error map alone."""
    lspns = [lspn for lspn in network_of(detector).lspns if isinstance(lspn, FoldedLSPN)]
    return lspns[:1] if detector.readout.kind is PeaksReadout else lspns


def all_of_a_frame(detector: KeypointDetector) -> Computed:
    """What a dense detector computes for a frame."""
    if isinstance(detector.network, FoldedDistilled):
        config = detector.network.config
        return Computed(1, [size**2 for size in config.shape.map_sizes()], [config.error_map_sizes[0] ** 2])
    sizes = ENCODER.map_sizes()
    sides = [-(-sizes[layer] // detector.config.patch_size) for layer in detector.config.layers]
    return Computed(1, [size**2 for size in sizes[: len(network_of(detector).trunk.strides)]], [n**2 for n in sides])


def computed_so_far(detector: KeypointDetector) -> Computed:
    """What a streaming detector has computed."""
    network = network_of(detector)
    assert detector.memory is not None
    assert network.streaming_trunk is not None
    patches = [float(memory.computed) for _, memory in network.memories]
    return Computed(detector.memory.detected, list(map(float, network.streaming_trunk.computed)), patches)


def flops_per_frame(detector: KeypointDetector, computed: Computed) -> float:
    """Multiplications and additions for one frame.

    :param detector: of a PermaKey, or of its student by peaks
    :param computed: what is computed for a frame
    """
    if isinstance(detector.network, FoldedDistilled):
        return distilled_flops(detector.network, detector.num_keypoints, computed)
    network = network_of(detector)
    kernels = [kernel.numel() for kernel, _, _ in network.trunk.layers()]
    total = sum(cells * weights for cells, weights in zip(computed.cells, kernels, strict=True))
    if detector.readout.kind is PointNetReadout:
        for size, (kernel, _, _) in zip(ENCODER.map_sizes(), network.pointnet.layers(), strict=True):
            total += computed.frames * size**2 * kernel.numel()
    for patches, lspn in zip(computed.patches, needed_lspns(detector), strict=False):
        weights = sum(tensor.numel() for name, tensor in lspn.named_buffers() if name.endswith("weight"))
        total += patches * weights
    return 2 * total


def distilled_flops(network: FoldedDistilled, num_keypoints: int, computed: Computed) -> float:
    """The same of a student: its convolutions, the first error map, and the features of the keypoints."""
    kernels = [kernel.numel() for kernel, _, _ in network.trunk.layers()]
    total = sum(cells * weights for cells, weights in zip(computed.cells, kernels, strict=True))
    total += computed.patches[0] * network.config.units + num_keypoints * network.to_features.numel()
    return 2 * total


def bytes_per_frame(detector: KeypointDetector, computed: Computed, batch_size: int) -> float:
    """Bytes that the convolutions and the LSPN cannot do without: weights once a call, maps written and read once.

    :param detector: of a PermaKey, or of its student by peaks
    :param computed: what is computed for a frame
    :param batch_size: frames in a call
    """
    if isinstance(detector.network, FoldedDistilled):
        weights = sum(tensor.nbytes for tensor in detector.network.trunk.buffers())
        filters = detector.network.config.shape.filters
        values = sum(cells * channels for cells, channels in zip(computed.cells, filters, strict=True))
        return computed.frames * weights / batch_size + 2 * 4 * values
    network, by_pointnet = network_of(detector), detector.readout.kind is PointNetReadout
    stacks = [network.trunk, network.pointnet] if by_pointnet else [network.trunk]
    weights = sum(tensor.nbytes for module in (*stacks, *needed_lspns(detector)) for tensor in module.buffers())
    values = sum(cells * filters for cells, filters in zip(computed.cells, ENCODER.filters, strict=False))
    if by_pointnet:
        sizes = zip(ENCODER.map_sizes(), ENCODER.filters, strict=True)
        values += computed.frames * sum(size**2 * filters for size, filters in sizes)
    return computed.frames * weights / batch_size + 2 * 4 * values


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
    named = f"{game}{OF_TEACHER}"
    checkpoint = named if checkpoint_exists(named) else config.checkpoint
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("dense", {"precision": "float32"}),
        ("dense", {"precision": "bfloat16"}),
        ("streaming", {"precision": "float32"}),
        ("streaming, peaks", {"precision": "float32", "readout": "peaks"}),
    ]
    student = checkpoint.removesuffix(OF_TEACHER)
    if student != checkpoint and checkpoint_exists(student):
        kinds.append(("distilled, peaks", {"precision": "float32", "readout": "peaks", "checkpoint": student}))
    rows = [
        {"game": game, "checkpoint": checkpoint, "detector": name, "batch_size": batch_size} | settings
        for name, settings in kinds
        for batch_size in config.batch_sizes
    ]
    detectors = []
    for row in rows:
        streaming = row["detector"].startswith("streaming")
        detector = KeypointDetector(
            row["checkpoint"], precision=row["precision"], readout=row.get("readout"), streaming=streaming, device="cpu"
        )
        for start in range(0, config.warm_up_frames if streaming else 1, 32):
            detector.detect(frames[start : start + (32 if streaming else 1)])
        detectors.append(detector)
    timed: list[list[float]] = [[] for _ in rows]
    before = [computed_so_far(detector) if detector.streaming else None for detector in detectors]
    start = config.warm_up_frames
    for _ in range(config.rounds):
        part = np.array(frames[start : start + config.frames_a_round])
        for row, detector, times in zip(rows, detectors, timed, strict=True):
            timed_frames = part if detector.streaming else part[: row["batch_size"]]
            times.append(time_detection(detector, timed_frames, row["batch_size"]) / len(timed_frames))
        start += config.frames_a_round
    for row, detector, times, earlier in zip(rows, detectors, timed, before, strict=True):
        row |= {"frames_per_s": 1 / statistics.median(times), "best_frames_per_s": 1 / min(times)}
        computed = all_of_a_frame(detector)
        if earlier is not None:
            computed = computed_so_far(detector).since(earlier, config.rounds * config.frames_a_round)
            row["new_frames_share"] = computed.frames
            row |= {"new_cells_per_frame": computed.cells, "new_patches_per_frame": computed.patches}
        row["gflop_per_frame"] = flops_per_frame(detector, computed) / 1e9
        row["gbytes_per_frame"] = bytes_per_frame(detector, computed, row["batch_size"]) / 1e9
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


@freed_memory_kept()
def main(config: SpeedBenchmark) -> None:
    """Measure, print and write."""
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


def command() -> None:
    """The command line."""
    run_command("speed.detectors", SpeedBenchmark, main)


if __name__ == "__main__":
    command()
