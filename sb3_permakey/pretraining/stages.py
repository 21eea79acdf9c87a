"""What each stage of pretraining learns from: frames, or the error maps that frozen modules made of them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from sb3_permakey.files import atomic_array
from sb3_permakey.keypoints import PermaKey, PermaKeyLosses
from sb3_permakey.keypoints.detector import to_images
from sb3_permakey.precision import autocast
from sb3_permakey.pretraining.frames import FrameStore

NO_LOSS = torch.zeros(())


class Stage(Protocol):
    """One stage: which parameters learn, from which samples, by which losses."""

    name: str
    learning_rate: float

    def parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that learn."""

    def set_training_mode(self, training: bool) -> None:
        """Training or evaluation mode of the modules that learn."""

    def size(self, split: str) -> int:
        """Number of samples of a split."""

    def losses(self, split: str, indices: np.ndarray, noise_seed: int | None) -> PermaKeyLosses:
        """Losses of the samples; latent noise by its seed, or none."""


class FrameStage:
    """VAE and LSPN, with or without the PointNet, on frames.

    :param model: the model
    :param store: the frames
    :param precision: of convolutions
    :param learning_rate: Adam's
    :param with_pointnet: True for the joint schedule, False for the first stage of the staged one
    """

    def __init__(
        self, model: PermaKey, store: FrameStore, precision: torch.dtype, learning_rate: float, *, with_pointnet: bool
    ) -> None:
        self.model, self.store, self.precision = model, store, precision
        self.learning_rate, self.with_pointnet = learning_rate, with_pointnet
        self.name = "VAE, LSPN and PointNet" if with_pointnet else "VAE and LSPN"
        self.device = next(model.parameters()).device

    def parameters(self) -> Iterable[nn.Parameter]:
        """All parameters but, where it is left out, the PointNet's."""
        modules = (self.model.vae, self.model.lspns, *([self.model.pointnet] if self.with_pointnet else []))
        return [parameter for module in modules for parameter in module.parameters()]

    def set_training_mode(self, training: bool) -> None:
        """Training or evaluation mode of the whole model."""
        self.model.train(training)

    def size(self, split: str) -> int:
        """Number of frames of a split."""
        return len(self.store.splits[split])

    def losses(self, split: str, indices: np.ndarray, noise_seed: int | None) -> PermaKeyLosses:
        """Losses of the frames."""
        images = to_images(self.store.splits[split][indices], self.device)
        noise = None
        if noise_seed is not None:
            generator = torch.Generator().manual_seed(noise_seed)
            noise = torch.randn(len(indices), self.model.config.latent_dim, generator=generator).to(self.device)
        with autocast(self.device, self.precision):
            return self.model.losses(images, noise, with_pointnet=self.with_pointnet)


class ErrorMapStage:
    """The PointNet alone, on error maps that the frozen VAE and LSPN make once of every frame.

    :param model: the model, its VAE and LSPN trained
    :param store: the frames
    :param precision: of convolutions
    :param learning_rate: Adam's
    :param folder: where the error maps are stored, one value a patch
    :param batch_size: images in a batch while they are made
    """

    name = "PointNet"

    def __init__(
        self,
        model: PermaKey,
        store: FrameStore,
        precision: torch.dtype,
        learning_rate: float,
        folder: Path,
        batch_size: int,
    ) -> None:
        self.model, self.precision, self.learning_rate = model, precision, learning_rate
        self.device = next(model.parameters()).device
        self.maps = {
            split: self._stored_maps(split, store.splits[split], folder, batch_size) for split in ("train", "valid")
        }

    def parameters(self) -> Iterable[nn.Parameter]:
        """The PointNet's parameters."""
        return self.model.pointnet.parameters()

    def set_training_mode(self, training: bool) -> None:
        """Training or evaluation mode of the PointNet; the rest stays frozen."""
        self.model.eval()
        self.model.pointnet.train(training)

    def size(self, split: str) -> int:
        """Number of frames of a split."""
        return len(self.maps[split][0])

    def losses(self, split: str, indices: np.ndarray, noise_seed: int | None) -> PermaKeyLosses:
        """The PointNet's loss; the others are zero."""
        maps = [torch.from_numpy(layer[indices]).to(self.device).float() for layer in self.maps[split]]
        with autocast(self.device, self.precision):
            return PermaKeyLosses(NO_LOSS, NO_LOSS, NO_LOSS, self.model.pointnet_loss(maps))

    def _stored_maps(self, split: str, frames: np.ndarray, folder: Path, batch_size: int) -> list[np.ndarray]:
        """Error maps of a split, one memory-mapped float16 array (N, h, w) a layer; made when they are not there."""
        paths = [folder / f"error_maps_{split}_{layer}.npy" for layer in self.model.config.layers]
        if not all(path.exists() for path in paths):
            self._make_maps(frames, paths, f"error maps of {split}", batch_size)
        return [np.load(path, mmap_mode="r") for path in paths]

    @torch.inference_mode()
    def _make_maps(self, frames: np.ndarray, paths: list[Path], title: str, batch_size: int) -> None:
        self.model.eval()
        with ExitStack() as files:
            arrays = [
                files.enter_context(atomic_array(path, np.float16, (len(frames), size, size)))
                for path, size in zip(paths, self.model.error_map_sizes, strict=True)
            ]
            for start in tqdm(range(0, len(frames), batch_size), desc=title, unit="batch", leave=False):
                images = to_images(frames[start : start + batch_size], self.device)
                with autocast(self.device, self.precision):
                    maps = self.model.layer_error_maps(images)
                for array, layer in zip(arrays, maps, strict=True):
                    array.append(layer.float().cpu().numpy())
