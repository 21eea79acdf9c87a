"""Which error map shall peaks be read from, and how far apart?

    python -m benchmarks.variants peaks --game Seaquest --checkpoint seaquest-teacher --out peaks-seaquest.json
    python -m benchmarks.variants peaks --game MsPacman --checkpoint mspacman-noisy-teacher --distractor both \\
        --out noisy.json

Nothing is trained: every variant reads the same checkpoint's error maps.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness.command import run_command
from benchmarks.variants.pointnet import figures, raw_error_maps
from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.files import write_json
from sb3_permakey.keypoints import PermaKey, load_checkpoint
from sb3_permakey.keypoints.device import place, resolve_device, resolve_precision
from sb3_permakey.keypoints.layers import IMAGE_SIZE
from sb3_permakey.keypoints.lspn import normalise_maps
from sb3_permakey.keypoints.peaks import error_map_peaks, local_contrast, match_keypoints
from sb3_permakey.provenance import provenance
from sb3_permakey.scores import labelled_frames


def on_grid_of(fine: Tensor, coarse: Tensor) -> Tensor:
    """A coarser map (N, h, w) with its cells repeated on a finer one's grid."""
    factor = round(fine.shape[-1] / coarse.shape[-1])
    repeated = F.interpolate(coarse.unsqueeze(1), scale_factor=factor, mode="nearest").squeeze(1)
    return repeated[:, : fine.shape[-2], : fine.shape[-1]]


def contrast(surround_px: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Reads the first layer's contrast to a square of so many pixels."""
    return lambda first, second: local_contrast(first, IMAGE_SIZE // first.shape[-1], surround_px)


MAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "first layer": lambda first, second: first,
    **{f"first layer's contrast to {side} px": contrast(side) for side in (14, 18, 26)},
    "second layer": lambda first, second: second,
    "mean": lambda first, second: (first + second) / 2,
    "geometric mean": lambda first, second: (first * second).sqrt(),
    "maximum": lambda first, second: first.maximum(second),
    "2 first + second": lambda first, second: (2 * first + second) / 3,
}
"""What is read of the two layers' maps, both scaled to [0, 1] and on the first one's grid."""


@dataclass(frozen=True)
class PeaksBenchmark:
    """Score peaks of several maps at several distances."""

    game: str
    """Game whose objects score the keypoints."""
    checkpoint: Path
    """PermaKey checkpoint of two layers."""
    out: Path
    """JSON file to write."""
    distances_px: tuple[float, ...] = (3.0, 5.0, 7.0, 10.0)
    """Least distances between peaks."""
    distractor: DistractorKind | None = None
    """Bars of noisy Atari on the frames."""


def main(config: PeaksBenchmark) -> None:
    """Read, score, write."""
    device = resolve_device("auto")
    model = place(load_checkpoint(config.checkpoint), device).eval()
    assert isinstance(model, PermaKey)
    labelled = labelled_frames(config.game, distractor=config.distractor)
    halves = [raw_error_maps(model, labelled.frames[:, half], resolve_precision("auto", device)) for half in range(2)]
    layers = [[normalise_maps(layer) for layer in raw] for raw in halves]
    variants = {}
    for name, read in MAPS.items():
        maps = [read(first, on_grid_of(first, second)) for first, second in layers]
        for distance in config.distances_px:
            first, second = (
                error_map_peaks(one, model.cell_sizes[0], model.config.num_keypoints, distance)[0].numpy()
                for one in maps
            )
            second = np.stack([new[match_keypoints(old, new)] for old, new in zip(first, second, strict=True)])
            variants[f"{name}, {distance:g} px"] = figures(first, second, labelled, model.config.window_std)
    settings = json.loads(json.dumps(asdict(config), default=str))
    write_json(config.out, {"game": config.game, "config": settings, "variants": variants, **provenance()})
    for name, scores in variants.items():
        print(f"{config.game}, {name}: F1 {scores['f1'][0]:.3f}")


def command() -> None:
    """The command line."""
    run_command("variants.peaks", PeaksBenchmark, main)


if __name__ == "__main__":
    command()
