"""A frozen keypoint model in use: uint8 frames in, keypoints out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from sb3_permakey.keypoints.checkpoint import CheckpointError, load_checkpoint
from sb3_permakey.keypoints.layers import IMAGE_SIZE
from sb3_permakey.keypoints.model import Keypoints
from sb3_permakey.keypoints.permakey import PermaKey
from sb3_permakey.keypoints.trunk import fold_trunk
from sb3_permakey.precision import autocast, place, resolve_device, resolve_precision

Result = TypeVar("Result")


def to_images(frames: np.ndarray, device: torch.device) -> Tensor:
    """Frames as the networks want them: uint8 (B, 84, 84, C) -> float32 (B, C, 84, 84) in [0, 1], channels last."""
    tensor = torch.from_numpy(np.require(frames, requirements="W")).to(device)
    return tensor.permute(0, 3, 1, 2).float().div_(255)


class KeypointDetector:
    """Keypoints of frames from a frozen model.

    :param model_or_path: a keypoint model, which is copied, or the path of a checkpoint
    :param device: "auto" takes a GPU when there is one
    :param precision: "float32", "bfloat16", or "auto": bfloat16 where the device computes in it
    :raises CheckpointError: when the path holds no good checkpoint
    """

    def __init__(
        self, model_or_path: PermaKey | str | Path, *, device: torch.device | str = "auto", precision: str = "auto"
    ) -> None:
        self.source = "the model" if isinstance(model_or_path, PermaKey) else str(model_or_path)
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.model = place(frozen_copy(model_or_path), self.device)
        self.trunk = fold_trunk(self.model)
        if self.precision == torch.bfloat16:
            for module in self.model.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.to(torch.bfloat16)
        self.config = self.model.config
        self.num_keypoints = self.config.num_keypoints
        self.feature_channels = self.model.feature_channels

    def detect(self, frames: np.ndarray) -> Keypoints:
        """Keypoints of frames.

        :param frames: uint8 (B, 84, 84, C)
        :return: float32 arrays, centers (B, K, 2) and features (B, K, C)
        :raises ValueError: when the frames have another shape or type
        """
        keypoints = self._run(self.model.keypoints, frames)
        return Keypoints(keypoints.centers.clamp(-1, 1).cpu().numpy(), keypoints.features.cpu().numpy())

    def error_maps(self, frames: np.ndarray) -> np.ndarray:
        """Error maps of frames uint8 (B, 84, 84, C): float32 (B, M, 84, 84) in [0, 1]."""
        return self._run(self.model.error_maps, frames).float().cpu().numpy()

    def check_channels(self, channels: int) -> None:
        """Raise CheckpointError unless the model takes images of that many channels."""
        if channels != self.config.image_channels:
            raise CheckpointError(
                f"{self.source} takes images of {self.config.image_channels} channel(s), but the frames have {channels}"
            )

    def _run(self, function: Callable[[Tensor], Result], frames: np.ndarray) -> Result:
        frames = np.asarray(frames)
        expected = (IMAGE_SIZE, IMAGE_SIZE)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:3] != expected:
            raise ValueError(f"frames must be uint8 (B, 84, 84, C), not {frames.dtype} {frames.shape}")
        self.check_channels(frames.shape[3])
        with torch.inference_mode(), autocast(self.device, self.precision):
            return function(to_images(frames, self.device))


def frozen_copy(model_or_path: PermaKey | str | Path) -> PermaKey:
    """A copy in evaluation mode without gradients, of a model or of a checkpoint's model."""
    if isinstance(model_or_path, PermaKey):
        model = PermaKey(model_or_path.config)
        model.load_state_dict(model_or_path.state_dict())
    else:
        model = load_checkpoint(model_or_path)
    return model.requires_grad_(False).eval()
