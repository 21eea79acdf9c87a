"""Distillation: a small detector learns what a trained one finds on recorded frames, clean and with bars."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from tqdm import tqdm

from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.files import atomic_array
from sb3_permakey.frames.reader import FrameReader
from sb3_permakey.keypoints import (
    CheckpointError,
    Distilled,
    DistilledConfig,
    DistilledLosses,
    DistilledTargets,
    KeypointDetector,
    KeypointModel,
    load_checkpoint,
    model_fingerprint,
)
from sb3_permakey.keypoints.device import autocast
from sb3_permakey.keypoints.distilled import MAP_SIZE, MIN_DISTANCE_PX, patch_roots
from sb3_permakey.keypoints.folded import FoldedPermaKey
from sb3_permakey.keypoints.layers import images_of
from sb3_permakey.keypoints.lspn import normalise_maps
from sb3_permakey.keypoints.peaks import error_map_peaks
from sb3_permakey.keypoints.shipped import teacher_of
from sb3_permakey.keypoints.transfer import to_device
from sb3_permakey.pretraining.config import Optimisation
from sb3_permakey.pretraining.distributed import Workers
from sb3_permakey.pretraining.stages import SPLITS, Stage, StagePlan
from sb3_permakey.pretraining.stored_targets import stored_targets
from sb3_permakey.pretraining.trainer import Pretraining
from sb3_permakey.settings import NO_DEFAULT, require_at_least, require_positive, require_seed, require_suffix

PLACES = 32
"""Places of a frame around which a student learns, half of them the highest peaks of its teacher's first error map."""
CROP = 20
"""Side of what it sees around such a place, in cells: even, a keypoint's window and what that depends on. Most of a
frame is what it was in the others, so that whole frames would teach less in the same time."""
LEAST_SEEN = 0.99
"""Part of a window that lies on a crop's known cells where its features are learned."""
AT_ONCE = 8
"""Frames that the teacher looks at in one call."""
BATCH_SIZE, LEARNING_RATE, LAST_RATE, DECAYS = 32, 3e-3, 0.02, 16
"""Of Adam; the rate falls to a fiftieth in so many equal steps."""
SETTLING_BATCHES = 16
"""Batches whose statistics BatchNorm keeps from the start on: a batch's own would be a noise in what is learned."""
UNLIMITED = 10**9


@dataclass(frozen=True)
class DistilConfig:
    """Train a small detector that finds what a trained one finds, in a fraction of the time."""

    teacher: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """Checkpoint of a PermaKey, or the name of one of the package's, e.g. mspacman-teacher."""
    frames: Path
    """Folder of frames that `collect` or `record_frames` wrote."""
    out: Path
    """Checkpoint to write, e.g. mspacman-student.safetensors; logs and the state for going on lie beside it."""
    distractor: DistractorKind | None = "both"
    """Bars drawn on some of the frames, so that the student agrees with its teacher on "noisy Atari" too; the frames
    themselves must be clean."""
    bars_every: int = 4
    """Bars are drawn on every so many-th frame; 1: on all."""
    most_frames: int = 4_000
    """Frames to learn from at most, an even selection; the teacher looks at each once."""
    filters: tuple[int, ...] = DistilledConfig.filters
    """Channels of the convolutions, at least two; these make a detector of a millisecond or two."""
    units: int = DistilledConfig.units
    """Units of each cell, of which errors and features are linear functions."""
    max_steps: int = 3_000
    """Steps, of 32 frames each."""
    max_minutes: Annotated[float | None, NO_DEFAULT] = None
    """Minutes at most."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Arithmetic of the student's convolutions while it learns."""
    device: str = "auto"
    """Where to train; auto takes a GPU when there is one."""
    save_every_s: float = 60.0
    """Seconds between two saves of the state for going on after a kill."""
    log_every_steps: int = 10
    """Steps between two rows of losses.csv and of the TensorBoard scalars."""
    picture_every_steps: int = 1000
    """Steps between two TensorBoard pictures."""
    seed: int = 0
    """Seed of weights, order of frames, places and bars."""
    compile = False  # what is learned of a crop has another shape each time

    def __post_init__(self) -> None:
        require_at_least(
            1,
            bars_every=self.bars_every,
            max_steps=self.max_steps,
            log_every_steps=self.log_every_steps,
            picture_every_steps=self.picture_every_steps,
        )
        require_at_least(BATCH_SIZE, most_frames=self.most_frames)
        require_at_least(0, save_every_s=self.save_every_s)
        require_positive(max_minutes=self.max_minutes)
        require_seed(self.seed)
        require_suffix(".safetensors", out=self.out)
        DistilledConfig(filters=self.filters, units=self.units)
        if self.distractor is None and self.bars_every != type(self).bars_every:
            raise ValueError("bars_every is only read where a distractor is given")

    @property
    def optimisation(self) -> Optimisation:
        """How it learns; the number of steps alone ends it."""
        return Optimisation(
            BATCH_SIZE, LEARNING_RATE, LAST_RATE ** (1 / DECAYS), max(self.max_steps // DECAYS, 1), UNLIMITED
        )

    @property
    def frames_folder(self) -> Path:
        """Where the frames are."""
        return self.frames

    @property
    def epochs(self) -> int:
        """As many as the steps take."""
        return UNLIMITED


def distil(config: DistilConfig) -> Path:
    """Train a student; a run that was stopped goes on, and so does a finished one that gets more steps.

    :param config: the run's settings
    :return: path of the checkpoint
    :raises CheckpointError: when there is no good teacher, or one that cannot be distilled
    :raises FrameStoreError: when the frames are missing, broken or made with other preprocessing
    :raises StateError: when the folder of the run belongs to one with other settings
    :raises WriteError: when checkpoint or state cannot be written, or another run is writing them
    """
    return Distillation(config).run()


class Distillation(Pretraining):
    """One run.

    :param config: the run's settings
    """

    config: DistilConfig  # type: ignore[assignment]  # has what a run reads
    model: Distilled

    def __init__(self, config: DistilConfig) -> None:
        self.teacher = load_checkpoint(config.teacher)
        super().__init__(config)  # type: ignore[arg-type]
        self.settings["teacher_sha256"] = model_fingerprint(self.teacher)

    def _make_reader(self) -> FrameReader:
        config = self.config
        return FrameReader(
            self.store,
            self.device,
            config.distractor,
            config.seed,
            bars_every=config.bars_every,
            most=config.most_frames,
        )

    def _make_model(self) -> Distilled:
        try:
            return Distilled(DistilledConfig.of_teacher(self.teacher, self.config.filters, self.config.units))
        except ValueError as error:
            teacher = teacher_of(self.config.teacher)
            hint = f", such as its own teacher, {teacher}" if teacher else ""
            raise CheckpointError(f"{self.config.teacher} {error}{hint}") from error

    def _plan(self) -> list[StagePlan]:
        stage = partial(
            DistilStage,
            self.model,
            self.reader,
            self.precision,
            teacher=self.teacher,
            seed=self.config.seed,
            folder=self.folder,
            workers=self.workers,
        )
        return [StagePlan(stage, self.config.max_steps)]


class DistilStage(Stage):
    """A student, on what its teacher says once of every frame.

    :param model: the student
    :param reader: the frames
    :param precision: of the student's convolutions
    :param teacher: the trained model
    :param seed: of the places
    :param folder: where the teacher's outputs are stored
    :param workers: the first process stores them, the others wait
    """

    model: Distilled
    name = "student"

    def __init__(
        self,
        model: Distilled,
        reader: FrameReader,
        precision: torch.dtype,
        *,
        teacher: KeypointModel,
        seed: int,
        folder: Path,
        workers: Workers,
    ) -> None:
        super().__init__(model, reader, precision, LEARNING_RATE)
        self.seed, self.folder = seed, folder
        # Frames with bars come after the others: those that follow each other stay alike, and the teacher streams.
        self.order = {split: self._order(split) for split in SPLITS}
        paths = {split: self._paths(split) for split in SPLITS}
        self.targets = stored_targets(paths, self._store_targets, teacher, reader.device, workers)
        if not has_statistics(model):
            self._settle_statistics()

    def set_training_mode(self, training: bool) -> None:
        """BatchNorm keeps the statistics that it was given at the start."""
        self.model.eval()

    def inputs(self, split: str, indices: np.ndarray, seed: tuple[int, ...] | None) -> tuple[Tensor, DistilledTargets]:
        """A crop of each frame, around a place that the seed decides, and what the teacher said of it."""
        random, rows = np.random.default_rng(seed or (0,)), np.arange(len(indices))
        *errors, places, features = (array[indices] for array in self.targets[split])
        corners = crop_corners(places[rows, random.integers(PLACES, size=len(indices))])
        frames = self.reader.frames(split, self.order[split][indices])
        of_crops = [
            cropped(layer, corners * layer.shape[1] // MAP_SIZE, CROP * layer.shape[1] // MAP_SIZE) for layer in errors
        ]
        known = known_cells(corners, len(self.model.config.filters))
        windows, inside = crop_windows(places, corners, self.model.config.window_std)
        seen = (windows * known[:, None]).sum(axis=(2, 3)) * inside > LEAST_SEEN

        arrays = {"frames": cropped(frames, 2 * corners, 2 * CROP), "known": known, "windows": windows, "seen": seen}
        arrays |= {f"crops {number}": layer for number, layer in enumerate(of_crops)}
        arrays |= {f"scales {number}": layer.max(axis=(1, 2)) for number, layer in enumerate(errors)}
        moved = to_device({**arrays, "features": features}, self.reader.device)
        return images_of(moved["frames"]), DistilledTargets(
            [moved[f"crops {number}"].float() for number in range(len(errors))],
            [moved[f"scales {number}"].float() for number in range(len(errors))],
            moved["known"],
            moved["windows"],
            moved["seen"],
            moved["features"].float(),
        )

    def compute(self, images: Tensor, targets: DistilledTargets) -> DistilledLosses:
        """How far the student is from its teacher."""
        with autocast(images.device, self.precision):
            return self.model.losses(images, targets)

    @torch.no_grad()
    def _settle_statistics(self) -> None:
        """Give BatchNorm the mean statistics of some batches, and the outputs those of the teacher's."""
        size, random = self.size("train"), np.random.default_rng((self.seed, SETTLING_BATCHES))
        batches = [
            self.inputs("train", np.sort(random.integers(size, size=BATCH_SIZE)), (self.seed, number))
            for number in range(SETTLING_BATCHES)
        ]
        norms = [module for module in self.model.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        self.model.train()
        for norm in norms:
            norm.momentum = None  # the mean of all batches, each as much as the others
        for batch in batches:
            self.compute(*batch)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.model.eval()
        images = torch.cat([images for images, _ in batches])
        units = self.model.trunk(images)[-1]
        for index, layer in enumerate(self.model.to_roots):
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            wanted = torch.cat([targets.errors[index] for _, targets in batches]).sqrt()
            layer.weight *= wanted.std() / patch_roots(layer, units).std().clamp_min(1e-12)
            layer.bias += wanted.mean() - patch_roots(layer, units).mean()
        features = torch.cat([targets.features.flatten(0, 1) for _, targets in batches])
        self.model.to_features.norm.weight.copy_(features.std(dim=0))
        self.model.to_features.norm.bias.copy_(features.mean(dim=0))

    def _order(self, split: str) -> np.ndarray:
        """Indices of the reader's frames in the order of the stored targets."""
        return np.argsort(self.reader.has_bars(np.arange(self.reader.size(split))), kind="stable")

    def _shapes(self) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
        """Shape for one frame, and type, of each array that is stored."""
        config = self.model.config
        return {
            **{
                f"errors_{layer}": ((size, size), np.float16)
                for layer, size in zip(config.layers, config.error_map_sizes, strict=True)
            },
            "places": ((PLACES, 2), np.float32),
            "features": ((PLACES, config.feature_channels), np.float16),
        }

    def _paths(self, split: str) -> list[Path]:
        return [self.folder / f"{split}_{name}.npy" for name in self._shapes()]

    def _store_targets(self, split: str, detector: KeypointDetector) -> None:
        """Store what the teacher says of a split's frames."""
        count, random = self.reader.size(split), np.random.default_rng((self.seed, SPLITS.index(split)))
        with ExitStack() as files, torch.inference_mode():
            arrays = [
                files.enter_context(atomic_array(path, dtype, (count, *shape)))
                for path, (shape, dtype) in zip(self._paths(split), self._shapes().values(), strict=True)
            ]
            for start in tqdm(range(0, count, AT_ONCE), desc=f"teacher on {split}", unit="batch", leave=False):
                frames = self.reader.frames(split, self.order[split][start : start + AT_ONCE])
                drawn = torch.from_numpy(random.uniform(-1, 1, (len(frames), PLACES // 2, 2)).astype(np.float32))
                errors, places, features = teacher_outputs(detector, frames, drawn)
                for array, values in zip(arrays, (*errors, places, features), strict=True):
                    array.append(values.cpu().numpy())


def teacher_outputs(
    detector: KeypointDetector, frames: np.ndarray, places: Tensor
) -> tuple[list[Tensor], Tensor, Tensor]:
    """What a teacher says of frames.

    :param detector: the teacher's, of a PermaKey
    :param frames: uint8 (B, 84, 84, C)
    :param places: (B, P / 2, 2), (y, x) in [-1, 1]
    :return: each layer's errors (B, h, w) relative to the patches' activations; as many of the first layer's peaks as
        places, and these, (B, P, 2); the features inside the windows around all of them, (B, P, C)
    """
    network = detector.network
    assert isinstance(network, FoldedPermaKey)
    maps = network.feature_maps(frames)
    errors = network.relative_errors(range(len(network.config.layers)), frames, maps)
    first = normalise_maps(errors[0])
    peaks, _ = error_map_peaks(first, network.cell_sizes[0], places.shape[1], MIN_DISTANCE_PX)
    places = torch.cat([peaks, places.to(peaks.device)], dim=1)
    return errors, places, network.features_at(places, maps[-1])


def crop_corners(places: np.ndarray) -> np.ndarray:
    """First row and column (B, 2), both even, of crops inside the map, as near around places (B, 2) as they can be."""
    middle = (places + 1) / 2 * (MAP_SIZE - 1)
    return (np.round((middle - CROP / 2) / 2).astype(int) * 2).clip(0, MAP_SIZE - CROP)


def cropped(arrays: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
    """Squares (B, side, side, ...) of arrays (B, h, w, ...) from corners (B, 2) on."""
    return np.stack(
        [array[row : row + side, column : column + side] for array, (row, column) in zip(arrays, corners, strict=True)]
    )


def known_cells(corners: np.ndarray, halo: int) -> np.ndarray:
    """1 where a crop's cell depends on the crop alone, (B, CROP, CROP).

    Cells near its edges do not, unless the image ends there too.

    :param corners: (B, 2)
    :param halo: cells to each side on which a cell depends
    """
    cells = np.arange(CROP)
    far = [
        ((cells >= halo) | (first[:, None] == 0)) & ((cells < CROP - halo) | (first[:, None] == MAP_SIZE - CROP))
        for first in corners.T
    ]
    return (far[0][:, :, None] & far[1][:, None]).astype(np.float32)


def crop_windows(places: np.ndarray, corners: np.ndarray, std: float) -> tuple[np.ndarray, np.ndarray]:
    """Windows around places (B, P, 2) as `layers.gaussian_windows` has them, cut to crops, of sum 1.

    :param places: (B, P, 2)
    :param corners: (B, 2)
    :param std: width of the windows
    :return: (B, P, CROP, CROP), and which part of the whole windows the crops have, (B, P)
    """
    whole = np.exp(-(((np.linspace(-1, 1, MAP_SIZE) - places[..., None]) / std) ** 2))
    cells = corners[:, None, :, None] + np.arange(CROP)
    along = np.take_along_axis(whole, np.broadcast_to(cells, (*whole.shape[:3], CROP)), axis=-1)
    inside = (along.sum(axis=-1) / whole.sum(axis=-1)).prod(axis=-1)
    along /= along.sum(axis=-1, keepdims=True).clip(min=1e-12)
    return along[:, :, 0, :, None] * along[:, :, 1, None], inside


def has_statistics(model: nn.Module) -> bool:
    """Whether BatchNorm has seen batches."""
    return any(bool(name.endswith("num_batches_tracked") and value) for name, value in model.named_buffers())
