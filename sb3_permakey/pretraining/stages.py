"""What each stage of pretraining learns from: frames, pairs of frames, or the error maps of frozen modules.

`stages_of` tells them by the model's class. A new model has its own registered there, `@stages_of.register` in any
module, rather than a method: models are plain torch and know nothing of stores, learning rates and processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, singledispatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from sb3_permakey.files import atomic_array
from sb3_permakey.frames.reader import FrameReader
from sb3_permakey.keypoints import (
    KeypointDetector,
    KeypointModel,
    PermaKey,
    PermaKeyLosses,
    Transporter,
    TransporterLosses,
)
from sb3_permakey.keypoints.device import autocast
from sb3_permakey.keypoints.transfer import to_device
from sb3_permakey.pretraining.config import PretrainConfig
from sb3_permakey.pretraining.distributed import Workers
from sb3_permakey.pretraining.stored_targets import stored_targets

SPLITS = ("train", "valid")
"""The splits that training reads."""


class Stage(ABC):
    """One stage: which modules learn, from which samples, by which losses; here all of them, one sample a frame.

    :param model: the model
    :param reader: the frames
    :param precision: of convolutions
    :param learning_rate: Adam's
    """

    name: str
    model: KeypointModel
    learning: list[nn.Module]
    """The modules that learn."""

    def __init__(self, model: KeypointModel, reader: FrameReader, precision: torch.dtype, learning_rate: float) -> None:
        self.model, self.reader, self.precision, self.learning_rate = model, reader, precision, learning_rate
        self.learning = [model]

    def set_training_mode(self, training: bool) -> None:
        """Training or evaluation mode of the modules that learn."""
        self.model.train(training)

    def size(self, split: str) -> int:
        """Number of samples of a split."""
        return self.reader.size(split)

    @abstractmethod
    def inputs(self, split: str, indices: np.ndarray, seed: tuple[int, ...] | None) -> tuple[Any, ...]:
        """What `compute` takes for the samples; the seed decides what is random, None chooses the plain way."""

    @abstractmethod
    def compute(self, *inputs: Any) -> Any:
        """The losses of such inputs, a NamedTuple of scalars."""

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that learn; all others of the model are frozen."""
        self.model.requires_grad_(False)
        for module in self.learning:
            module.requires_grad_(True)
        return [parameter for module in self.learning for parameter in module.parameters()]


class FrameStage(Stage):
    """VAE and LSPN, with or without the PointNet, on frames.

    :param model: the model
    :param reader: the frames
    :param precision: of convolutions
    :param learning_rate: Adam's
    :param with_pointnet: True for the joint schedule, False for the first stage of the staged one
    :param lspn_stride: the LSPN learns from every so many-th image
    """

    model: PermaKey

    def __init__(
        self,
        model: PermaKey,
        reader: FrameReader,
        precision: torch.dtype,
        learning_rate: float,
        *,
        with_pointnet: bool,
        lspn_stride: int,
    ) -> None:
        super().__init__(model, reader, precision, learning_rate)
        self.with_pointnet, self.lspn_stride = with_pointnet, lspn_stride
        self.name = "VAE, LSPN and PointNet" if with_pointnet else "VAE and LSPN"
        self.learning = [model.vae, model.lspns, *([model.pointnet] if with_pointnet else [])]

    def inputs(self, split: str, indices: np.ndarray, seed: tuple[int, ...] | None) -> tuple[Tensor, Tensor | None]:
        """Images and the latents' noise, which each frame's index and the seed decide."""
        if seed is None:
            return self.reader.images(split, indices), None
        latent_dim = self.model.config.latent_dim
        noise = [np.random.default_rng((*seed, int(index))).standard_normal(latent_dim) for index in indices]
        moved = to_device({**self.reader.asked(split, indices), "noise": np.array(noise)}, self.reader.device)
        return self.reader.given(split, moved), moved["noise"]

    def compute(self, images: Tensor, noise: Tensor | None) -> PermaKeyLosses:
        """Losses of the frames."""
        stride = self.lspn_stride if self.model.training else 1
        with autocast(images.device, self.precision):
            return self.model.losses(images, noise, with_pointnet=self.with_pointnet, lspn_stride=stride)


class PairStage(Stage):
    """The Transporter, on pairs of frames of one episode.

    :param model: the model
    :param reader: the frames
    :param precision: of convolutions
    :param learning_rate: Adam's
    :param max_distance: frames that source and target lie apart at most
    """

    model: Transporter
    name = "Transporter"

    def __init__(
        self, model: Transporter, reader: FrameReader, precision: torch.dtype, learning_rate: float, max_distance: int
    ) -> None:
        super().__init__(model, reader, precision, learning_rate)
        self.max_distance = max_distance

    def inputs(self, split: str, indices: np.ndarray, seed: tuple[int, ...] | None) -> tuple[Tensor, Tensor]:
        """Source and target images; without a seed, the sources of validation, which are always the same."""
        targets, sources = np.asarray(indices), np.empty_like(indices)
        firsts, lasts = self.reader.episode_bounds(split, targets)
        low, high = np.maximum(firsts, targets - self.max_distance), np.minimum(lasts, targets + self.max_distance)
        for row, index in enumerate(targets):
            random = np.random.default_rng((*(seed or (0,)), int(index)))
            sources[row] = random.integers(low[row], high[row] + 1)
        asked = {**self.reader.asked(split, sources, "sources"), **self.reader.asked(split, targets, "targets")}
        moved = to_device(asked, self.reader.device)
        return self.reader.given(split, moved, "sources"), self.reader.given(split, moved, "targets")

    def compute(self, source: Tensor, target: Tensor) -> TransporterLosses:
        """Losses of the pairs."""
        with autocast(target.device, self.precision):
            return self.model.losses(source, target)


class ErrorMapStage(Stage):
    """The PointNet alone, on error maps that the frozen VAE and LSPN make once of every frame.

    :param model: the model, its VAE and LSPN trained
    :param reader: the frames
    :param precision: of convolutions
    :param learning_rate: Adam's
    :param folder: where the error maps are stored, one value a patch
    :param batch_size: images in a batch while they are made
    :param workers: the first process makes them, the others wait
    """

    model: PermaKey
    name = "PointNet"

    def __init__(
        self,
        model: PermaKey,
        reader: FrameReader,
        precision: torch.dtype,
        learning_rate: float,
        folder: Path,
        batch_size: int,
        workers: Workers,
    ) -> None:
        super().__init__(model, reader, precision, learning_rate)
        self.learning = [model.pointnet]
        paths = {split: self._paths(split, folder) for split in SPLITS}

        def store(split: str, detector: KeypointDetector) -> None:
            self._store_maps(split, paths[split], batch_size, detector)

        self.maps = stored_targets(paths, store, model, reader.device, workers)

    def set_training_mode(self, training: bool) -> None:
        """Training or evaluation mode of the PointNet; the rest stays frozen."""
        self.model.eval()
        self.model.pointnet.train(training)

    def size(self, split: str) -> int:
        """Number of frames of a split."""
        return len(self.maps[split][0])

    def inputs(self, split: str, indices: np.ndarray, seed: tuple[int, ...] | None) -> tuple[Tensor, ...]:
        """Each layer's stored error maps; nothing is random."""
        maps = {str(layer): maps[indices] for layer, maps in enumerate(self.maps[split])}
        return tuple(layer_maps.float() for layer_maps in to_device(maps, self.reader.device).values())

    def compute(self, *maps: Tensor) -> PermaKeyLosses:
        """The PointNet's loss; the others are zero."""
        none = torch.zeros((), device=maps[0].device)
        with autocast(maps[0].device, self.precision):
            return PermaKeyLosses(none, none, none, self.model.pointnet_loss(list(maps)))

    def _paths(self, split: str, folder: Path) -> list[Path]:
        return [folder / f"error_maps_{split}_{layer}.npy" for layer in self.model.config.layers]

    def _store_maps(self, split: str, paths: list[Path], batch_size: int, detector: KeypointDetector) -> None:
        """Store a split's error maps, one float16 array (N, h, w) a layer."""
        count = self.reader.size(split)
        with ExitStack() as files:
            arrays = [
                files.enter_context(atomic_array(path, np.float16, (count, size, size)))
                for path, size in zip(paths, self.model.error_map_sizes, strict=True)
            ]
            for start in tqdm(range(0, count, batch_size), desc=f"error maps of {split}", unit="batch", leave=False):
                frames = self.reader.frames(split, np.arange(start, min(start + batch_size, count)))
                for array, layer in zip(arrays, detector.layer_error_maps(frames), strict=True):
                    array.append(layer)


class StageParts(NamedTuple):
    """What stages are made of beside the model."""

    config: PretrainConfig
    reader: FrameReader
    precision: torch.dtype
    folder: Path
    """Where a stage can keep what it makes of the frames."""
    workers: Workers


class StagePlan(NamedTuple):
    """A stage to come."""

    make: Callable[[], Stage]
    """Makes it when its turn has come: it may need what the stages before it have trained."""
    max_steps: int | None
    """Its steps at most, beside those of the epochs."""


@singledispatch
def stages_of(model: KeypointModel, parts: StageParts) -> list[StagePlan]:
    """The stages in which a model is trained, first to last, by the model's class.

    :raises TypeError: when none are registered for it
    """
    raise TypeError(f"no stages are registered for a {type(model).__name__}: stages_of.register does")


@stages_of.register
def _(model: PermaKey, parts: StageParts) -> list[StagePlan]:
    config, rate = parts.config, parts.config.optimisation.learning_rate
    on_frames = partial(
        FrameStage,
        model,
        parts.reader,
        parts.precision,
        rate,
        with_pointnet=config.schedule == "joint",
        lspn_stride=config.lspn_stride,
    )
    pointnet_alone = partial(
        ErrorMapStage,
        model,
        parts.reader,
        parts.precision,
        config.pointnet_learning_rate,
        parts.folder,
        config.optimisation.batch_size,
        parts.workers,
    )
    last = StagePlan(pointnet_alone, config.max_steps if config.pointnet_steps is None else config.pointnet_steps)
    if config.frozen_from:
        return [last]
    first = StagePlan(on_frames, config.max_steps)
    return [first, last] if config.schedule == "staged" else [first]


@stages_of.register
def _(model: Transporter, parts: StageParts) -> list[StagePlan]:
    config, rate = parts.config, parts.config.optimisation.learning_rate
    on_pairs = partial(PairStage, model, parts.reader, parts.precision, rate, config.max_pair_distance)
    return [StagePlan(on_pairs, config.max_steps)]
