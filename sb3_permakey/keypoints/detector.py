"""A frozen keypoint model in use: uint8 frames in, keypoints out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from sb3_permakey.keypoints.checkpoint import CheckpointError, load_checkpoint
from sb3_permakey.keypoints.layers import IMAGE_SIZE, gaussian_windows, window_means
from sb3_permakey.keypoints.model import KeypointModel, Keypoints
from sb3_permakey.keypoints.peaks import error_map_peaks
from sb3_permakey.keypoints.permakey import PermaKey
from sb3_permakey.keypoints.trunk import fold_trunk
from sb3_permakey.precision import autocast, place, resolve_device, resolve_precision

Result = TypeVar("Result")


@dataclass(frozen=True)
class ReadoutConfig:
    """How keypoints are read from a model."""

    readout: Literal["pointnet", "peaks"] = "pointnet"
    """The model's PointNet, or the highest peaks of its first layer's error map."""
    num_keypoints: int | None = None
    """K; None: as many as the model's config says. Peaks alone may be of another number."""
    min_distance_px: float = 5.0
    """Least distance between two peaks, in pixels."""

    def __post_init__(self) -> None:
        if self.readout not in ("pointnet", "peaks"):
            raise ValueError(f"readout must be 'pointnet' or 'peaks', not {self.readout!r}")
        if self.num_keypoints is not None and self.num_keypoints < 1:
            raise ValueError(f"num_keypoints must be at least 1, not {self.num_keypoints}")
        if self.min_distance_px <= 0:
            raise ValueError(f"min_distance_px must be positive, not {self.min_distance_px}")


def to_images(frames: np.ndarray, device: torch.device) -> Tensor:
    """Frames as the networks want them: uint8 (B, 84, 84, C) -> float32 (B, C, 84, 84) in [0, 1], channels last."""
    tensor = torch.from_numpy(np.require(frames, requirements="W")).to(device)
    return tensor.permute(0, 3, 1, 2).float().div_(255)


class KeypointDetector:
    """Keypoints of frames from a frozen model.

    :param model_or_path: a keypoint model, which is copied, or the path of a checkpoint
    :param device: "auto" takes a GPU when there is one
    :param precision: "float32", "bfloat16", or "auto": bfloat16 where the device computes in it
    :param readout: "pointnet" (None too), or "peaks": the highest peaks of a PermaKey's first error map
    :param num_keypoints: K of the peaks; None takes the model's
    :param min_distance_px: least distance between two peaks, in pixels
    :raises CheckpointError: when the path holds no good checkpoint
    :raises ValueError: when the model cannot be read like that
    """

    def __init__(
        self,
        model_or_path: KeypointModel | str | Path,
        *,
        device: torch.device | str = "auto",
        precision: str = "auto",
        readout: Literal["pointnet", "peaks"] | None = None,
        num_keypoints: int | None = None,
        min_distance_px: float = 5.0,
    ) -> None:
        self.source = "the model" if isinstance(model_or_path, KeypointModel) else str(model_or_path)
        wanted = ReadoutConfig(readout or "pointnet", num_keypoints, min_distance_px)
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.model = place(frozen_copy(model_or_path), self.device)
        self.trunk = fold_trunk(self.model)
        if self.precision == torch.bfloat16:
            for module in self.model.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.to(torch.bfloat16)
        self.config = self.model.config
        self.num_keypoints = wanted.num_keypoints or self.config.num_keypoints
        self.readout = replace(wanted, num_keypoints=self.num_keypoints)
        self.feature_channels = self.model.feature_channels
        if self.readout.readout == "peaks":
            self._error_map_model()
        elif self.num_keypoints != self.config.num_keypoints:
            raise ValueError(
                f"{self.source} has a PointNet of {self.config.num_keypoints} keypoints, not {self.num_keypoints}: "
                "only readout='peaks' can have another number"
            )

    def detect(self, frames: np.ndarray) -> Keypoints:
        """Keypoints of frames.

        :param frames: uint8 (B, 84, 84, C)
        :return: float32 arrays, centers (B, K, 2) and features (B, K, C); of peaks their heights too, confidence (B, K)
        :raises ValueError: when the frames have another shape or type
        """
        read = self._peaks if self.readout.readout == "peaks" else self.model.keypoints
        centers, features, confidence = self._run(read, frames)
        return Keypoints(
            centers.clamp(-1, 1).cpu().numpy(),
            features.cpu().numpy(),
            None if confidence is None else confidence.clamp(0, 1).cpu().numpy(),
        )

    def error_maps(self, frames: np.ndarray) -> np.ndarray:
        """Error maps of frames uint8 (B, 84, 84, C): float32 (B, M, 84, 84) in [0, 1].

        :raises ValueError: when the model has none, or the frames have another shape or type
        """
        return self._run(self._error_map_model().error_maps, frames).float().cpu().numpy()

    def check_channels(self, channels: int) -> None:
        """Raise CheckpointError unless the model takes images of that many channels."""
        if channels != self.config.image_channels:
            raise CheckpointError(
                f"{self.source} takes images of {self.config.image_channels} channel(s), but the frames have {channels}"
            )

    def _error_map_model(self) -> PermaKey:
        if not isinstance(self.model, PermaKey):
            raise ValueError(f"{self.source} is a {type(self.model).__name__}, which has no error maps: PermaKey has")
        return self.model

    def _peaks(self, images: Tensor) -> Keypoints:
        """Peaks of the first layer's error map, their features as the PointNet's keypoints have them."""
        model = self._error_map_model()
        features, error_map = model.features_and_first_map(images)
        centers, heights = error_map_peaks(
            error_map, model.cell_sizes[0], self.num_keypoints, self.readout.min_distance_px
        )
        windows = gaussian_windows(centers, model.feature_size, model.config.window_std)
        return Keypoints(centers, window_means(features, windows), heights)

    def _run(self, function: Callable[[Tensor], Result], frames: np.ndarray) -> Result:
        frames = np.asarray(frames)
        expected = (IMAGE_SIZE, IMAGE_SIZE)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:3] != expected:
            raise ValueError(f"frames must be uint8 (B, 84, 84, C), not {frames.dtype} {frames.shape}")
        self.check_channels(frames.shape[3])
        with torch.inference_mode(), autocast(self.device, self.precision):
            return function(to_images(frames, self.device))


def frozen_copy(model_or_path: KeypointModel | str | Path) -> KeypointModel:
    """A copy in evaluation mode without gradients, of a model or of a checkpoint's model."""
    if isinstance(model_or_path, KeypointModel):
        model = type(model_or_path)(model_or_path.config)
        model.load_state_dict(model_or_path.state_dict())
    else:
        model = load_checkpoint(model_or_path)
    return model.requires_grad_(False).eval()
