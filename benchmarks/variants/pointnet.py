"""What makes a PointNet better? One change at a time on the same frozen error maps.

    python -m benchmarks.variants pointnet --checkpoint seaquest.safetensors --frames frames/seaquest --game Seaquest

Each variant trains its PointNet on the checkpoint's error maps and is scored against true objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.harness.command import run_command
from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.files import write_json
from sb3_permakey.frames.reader import FrameReader
from sb3_permakey.frames.store import FrameStore
from sb3_permakey.keypoints import PermaKey, load_checkpoint
from sb3_permakey.keypoints.device import autocast, freed_memory_kept, place, resolve_device, resolve_precision
from sb3_permakey.keypoints.layers import gaussian_windows, soft_argmax, to_images
from sb3_permakey.keypoints.lspn import normalise_maps
from sb3_permakey.keypoints.peaks import local_contrast
from sb3_permakey.keypoints.pointnet import PointNet, pointnet_loss
from sb3_permakey.provenance import provenance
from sb3_permakey.scores import labelled_frames, score_keypoints


@dataclass(frozen=True)
class Variant:
    """A PointNet and how it is trained; the defaults are the paper's but for the learning rate."""

    softmax: Literal["axes", "plane"] = "axes"
    """axes: softmax of each axis' average (paper). plane: one softmax over the whole map."""
    temperature: float | None = None
    """Factor on the maps before the softmax, learned from this value on; None has none (paper)."""
    window_std: float = 0.1
    """Width of the windows."""
    first_window_std: float | None = None
    """Their width at the beginning, from which it shrinks over the first half of the steps; None has them narrow at
    once (paper)."""
    scale: Literal["image", "data"] = "image"
    """Error maps scaled to [0, 1] for each image (paper) or by the data set's 99.9 percentile."""
    power: float = 1.0
    """Exponent of the scaled maps; below 1 it lights up what is dim beside the brightest place."""
    surround_px: float | None = None
    """Maps' contrast to a square of this side, in pixels of the image, instead of the maps; None for the maps."""
    keypoints_factor: int = 1
    """So many times K keypoints are trained and the K on the highest error are kept."""
    learning_rate: float = 1e-3
    """Adam's learning rate."""

    def window_std_at(self, progress: float) -> float:
        """Width of the windows when this part of the training is done, from 0 to 1."""
        wide = self.first_window_std or self.window_std
        return self.window_std * (wide / self.window_std) ** max(1 - 2 * progress, 0)


VARIANTS = {
    "paper": Variant(),
    "learning rate 4e-3": Variant(learning_rate=4e-3),
    "plane softmax": Variant(softmax="plane"),
    "learned temperature": Variant(temperature=10.0),
    "window std 0.07": Variant(window_std=0.07),
    "window std 0.15": Variant(window_std=0.15),
    "scaled over the data": Variant(scale="data"),
    "2K keypoints, K kept": Variant(keypoints_factor=2),
    "power 0.5": Variant(power=0.5),
    "plane softmax, power 0.5": Variant(softmax="plane", power=0.5),
    "plane softmax, 2K keypoints, K kept": Variant(softmax="plane", keypoints_factor=2),
    "plane softmax, power 0.5, windows from 0.4": Variant(softmax="plane", power=0.5, first_window_std=0.4),
    "plane softmax, power 0.5, lr 3e-4": Variant(softmax="plane", power=0.5, learning_rate=3e-4),
    "plane softmax, contrast to 18 px": Variant(softmax="plane", surround_px=18.0),
    "plane softmax, power 0.5, contrast to 18 px": Variant(softmax="plane", power=0.5, surround_px=18.0),
}


@dataclass(frozen=True)
class VariantsBenchmark:
    """Train and score PointNet variants on one checkpoint's error maps."""

    checkpoint: Path
    """PermaKey checkpoint whose VAE and LSPN are used."""
    frames: Path
    """Frames to train on."""
    game: str
    """Game whose objects score the keypoints."""
    out: Path
    """JSON file; variants that it holds already are not trained again."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Names of the variants."""
    training_frames: int = 4000
    """Training frames used."""
    steps: int = 3000
    """Training steps."""
    batch_size: int = 16
    """Frames in a batch."""
    distractor: DistractorKind | None = None
    """Bars to draw on the frames, in training and score."""
    threads: int = 1
    """CPU threads."""
    seed: int = 0
    """Seed of weights and of the order of frames."""

    def __post_init__(self) -> None:
        for name in self.variants:
            if name not in VARIANTS:
                raise ValueError(f"unknown variant {name!r}: one of {', '.join(map(repr, VARIANTS))}")


class VariantPointNet(nn.Module):
    """PointNet with the variant's softmax: (B, M, 84, 84) -> (B, K, 2)."""

    def __init__(self, maps: int, num_keypoints: int, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.net = PointNet(maps, num_keypoints)
        if variant.temperature is not None:
            self.log_temperature = nn.Parameter(torch.full((num_keypoints, 1, 1), float(np.log(variant.temperature))))

    def forward(self, maps: Tensor) -> Tensor:
        """Keypoint centres."""
        logits = self.net.to_keypoints(self.net.trunk(maps)[-1]).float()
        if self.variant.temperature is not None:
            logits = logits * self.log_temperature.exp()
        return soft_argmax(logits, self.variant.softmax)


def raw_error_maps(model: PermaKey, frames: np.ndarray, precision: torch.dtype, batch_size: int = 32) -> list[Tensor]:
    """Error maps of frames before they are scaled, one value a patch, of each layer (N, h, w)."""
    device = next(model.parameters()).device
    maps: list[list[Tensor]] = [[] for _ in model.config.layers]
    with torch.inference_mode(), autocast(device, precision):
        for start in tqdm(range(0, len(frames), batch_size), desc="error maps", leave=False):
            images = to_images(frames[start : start + batch_size], device)
            for errors, kept in zip(model.unscaled_error_maps(images), maps, strict=True):
                kept.append(errors.float().cpu())
    return [torch.cat(kept) for kept in maps]


def scaler(model: PermaKey, variant: Variant, raw: list[Tensor]) -> Callable[[list[Tensor]], list[Tensor]]:
    """How a variant scales raw error maps; the data's percentiles are those of the maps given."""

    def contrast(maps: list[Tensor]) -> list[Tensor]:
        if variant.surround_px is None:
            return maps
        sizes = model.cell_sizes
        return [local_contrast(layer, size, variant.surround_px) for layer, size in zip(maps, sizes, strict=True)]

    if variant.scale == "image":
        return lambda maps: [normalise_maps(layer).pow(variant.power) for layer in contrast(maps)]
    values = [layer.flatten()[:: max(1, layer.numel() // 1_000_000)].numpy() for layer in contrast(raw)]
    tops = [float(np.quantile(some, 0.999)) for some in values]
    return lambda maps: [(layer / top).clamp(0, 1) for layer, top in zip(contrast(maps), tops, strict=True)]


def train(model: PermaKey, raw: list[Tensor], variant: Variant, config: VariantsBenchmark) -> VariantPointNet:
    """Train a variant's PointNet on raw error maps."""
    torch.manual_seed(config.seed)
    device = next(model.parameters()).device
    precision = resolve_precision("auto", device)
    net = VariantPointNet(len(raw), model.config.num_keypoints * variant.keypoints_factor, variant)
    net = place(net, device).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=variant.learning_rate)
    scale, random = scaler(model, variant, raw), np.random.default_rng(config.seed)
    for step in tqdm(range(config.steps), leave=False):
        chosen = torch.from_numpy(random.choice(len(raw[0]), config.batch_size, replace=False))
        maps = model.stack_maps(scale([layer[chosen] for layer in raw])).to(device)
        with autocast(device, precision):
            centers = net(maps)
        loss = pointnet_loss(centers, maps, variant.window_std_at(step / config.steps))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return net.eval()


@torch.inference_mode()
def keypoints(model: PermaKey, net: VariantPointNet, raw: list[Tensor], variant: Variant, trained_on: list[Tensor]):
    """Keypoints (N, K, 2) of raw error maps; with more than K, those inside whose window the error is highest."""
    scale, found = scaler(model, variant, trained_on), []
    for start in range(0, len(raw[0]), 32):
        maps = model.stack_maps(scale([layer[start : start + 32] for layer in raw]))
        centers = net(maps)
        if variant.keypoints_factor > 1:
            windows = gaussian_windows(centers, maps.shape[-1], variant.window_std)
            height = torch.einsum("bkhw,bhw->bk", windows, maps.mean(1)) / windows.sum((2, 3))
            kept = height.topk(model.config.num_keypoints, dim=1).indices
            centers = centers.gather(1, kept.unsqueeze(-1).expand(-1, -1, 2))
        found.append(centers.clamp(-1, 1))
    return torch.cat(found).numpy()


def figures(first: np.ndarray, second: np.ndarray, labelled, window_std: float) -> dict[str, list[float | None]]:
    """Scores with their intervals, as JSON holds them: null where nothing could be counted."""
    scores = score_keypoints(first, second, labelled, window_std)
    return {name: [None if np.isnan(value) else value for value in figure] for name, figure in scores.items()}


@freed_memory_kept()
def main(config: VariantsBenchmark) -> None:
    """Train and score what the JSON file does not hold yet."""
    torch.set_num_threads(config.threads)
    device = resolve_device("auto")
    precision = resolve_precision("auto", device)
    model = place(load_checkpoint(config.checkpoint), device).eval()
    assert isinstance(model, PermaKey)
    labelled = labelled_frames(config.game, distractor=config.distractor)
    pairs = [raw_error_maps(model, labelled.frames[:, half], precision) for half in range(2)]
    results = json.loads(config.out.read_text()) if config.out.exists() else {}
    results |= {"game": config.game, "config": json.loads(json.dumps(asdict(config), default=str)), **provenance()}
    results.setdefault("variants", {})
    reader = FrameReader(FrameStore(config.frames), device, config.distractor, config.seed)
    chosen = np.linspace(0, reader.size("train") - 1, config.training_frames).astype(int)
    raw = raw_error_maps(model, reader.frames("train", chosen), precision)
    for name in config.variants:
        if name in results["variants"]:
            continue
        variant = VARIANTS[name]
        net = train(model, raw, variant, config)
        first, second = (keypoints(model, net, maps, variant, raw) for maps in pairs)
        results["variants"][name] = figures(first, second, labelled, variant.window_std)
        write_json(config.out, results)
        print(
            config.game,
            name,
            {key: round(value[0], 3) for key, value in results["variants"][name].items() if value[0] is not None},
            flush=True,
        )


def command() -> None:
    """The command line."""
    run_command("variants.pointnet", VariantsBenchmark, main)


if __name__ == "__main__":
    command()
