"""A frozen keypoint model in use: uint8 frames in, keypoints out."""

from __future__ import annotations

import logging
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sb3_permakey.keypoints.captured import CapturedCall
from sb3_permakey.keypoints.checkpoint import CheckpointError, load_checkpoint
from sb3_permakey.keypoints.device import place, resolve_device, resolve_precision
from sb3_permakey.keypoints.layers import IMAGE_SIZE
from sb3_permakey.keypoints.model import FrozenModel, KeypointModel, Keypoints, require_error_maps
from sb3_permakey.keypoints.peaks import KeypointTracker
from sb3_permakey.keypoints.readouts import ReadoutConfig, ReadoutName, ReadoutSettings, readout_config
from sb3_permakey.keypoints.streaming import FrameMemory
from sb3_permakey.keypoints.transfer import to_device, to_host
from sb3_permakey.keypoints.trials import PlacementTrial, PrecisionTrial
from sb3_permakey.keypoints.trunk import fold_trunk

if TYPE_CHECKING:
    from typing_extensions import Unpack

LARGEST_DIFFERENCE_PX = 0.25
"""How far bfloat16 may move a keypoint."""
MOST_CAPTURES = 64
"""CUDA graphs of one detector, one for each number of frames."""
LOGGER = logging.getLogger(__name__)


class DetectorSettings(ReadoutSettings, total=False):
    """What a `KeypointDetector` takes beside the model and streaming, as keyword arguments."""

    device: torch.device | str
    precision: str
    cuda_graph: bool
    readout: ReadoutName | ReadoutConfig | None


class KeypointDetector:
    """Keypoints of frames from a frozen model.

    With the precision "auto", bfloat16 is on trial: of the first frames, the 1st, 2nd, 4th, 8th and so on to the 4096th
    are computed in float32 too, and where a keypoint differs by more than 0.25 px, the detector warns and goes on in
    float32. Streaming leaves so little to compute that "auto" is float32 at once.

    :param model_or_path: a keypoint model, which is copied, or the path of a checkpoint
    :param device: "auto" takes a GPU when there is one
    :param precision: "float32", "bfloat16", or "auto": bfloat16 where the device computes in it and keypoints allow it
    :param cuda_graph: on a GPU, whether what it does for so many frames is replayed as one CUDA graph once it was done
        three times; for models that stay on the device throughout, as all of this package do
    :param streaming: compute features where the frames differ from the last call's, and errors of patches whose
        surroundings were never seen before; remember the keypoints of the last 4096 frames. Keypoints are the same
        within rounding, and those of frames in play come several times as fast. It takes up to 12 MB a layer, 1.1 MB a
        keypoint and 2.4 MB a frame of a call. A GPU and a Transporter compute everything anyway; where there is a GPU
        and the device is "auto", it and the streaming CPU take part in a `PlacementTrial`, and the quicker one goes on
    :param readout: how keypoints are read: a `ReadoutConfig`, or a readout's name, "pointnet" (None too) or "peaks"
    :param settings: the other fields of the `ReadoutConfig`: num_keypoints, min_distance_px, surround_px, centroid_px,
        persistence
    :raises CheckpointError: when the path holds no good checkpoint
    :raises ValueError: when the model cannot be read like that
    """

    def __init__(
        self,
        model_or_path: KeypointModel | str | Path,
        *,
        device: torch.device | str = "auto",
        precision: str = "auto",
        cuda_graph: bool = False,
        streaming: bool = False,
        readout: ReadoutName | ReadoutConfig | None = None,
        **settings: Unpack[ReadoutSettings],
    ) -> None:
        self.source = "the model" if isinstance(model_or_path, KeypointModel) else str(model_or_path)
        wanted = readout_config(readout, settings)
        self.device = resolve_device(device)
        self.model = place(frozen_copy(model_or_path), self.device)
        self.trunk = fold_trunk(self.model)
        self.config = self.model.config
        self.readout = wanted.completed(self.model)
        self._read = self.readout.kind(self.readout, self.model, self.source).read
        self.feature_channels = self.model.feature_channels
        self.cuda_graph = cuda_graph
        self._rival: KeypointDetector | None = None
        self._captured: CapturedCall[Keypoints] | None = None
        streaming = streaming and self.model.streams
        if streaming and device == "auto" and self.device.type != "cpu":
            self._rival = KeypointDetector(
                self.model, device="cpu", precision=precision, streaming=True, readout=self.readout
            )
            self._placement = PlacementTrial()
        self.streaming = streaming and self.device.type == "cpu"
        if precision == "auto":
            precision = "float32" if self.streaming else self.model.auto_precision
        self.precision = resolve_precision(precision, self.device)
        self._use(self.model.frozen(self.precision, streaming=self.streaming))
        self.memory = FrameMemory() if self.streaming else None
        self._trial = PrecisionTrial() if precision == "auto" and self.precision == torch.bfloat16 else None

    @property
    def num_keypoints(self) -> int:
        """K."""
        return self.readout.num_keypoints or self.config.num_keypoints

    def detect(self, frames: np.ndarray) -> Keypoints:
        """Keypoints of frames.

        :param frames: uint8 (B, 84, 84, C), of any environments in any order
        :return: float32 arrays, centers (B, K, 2) and features (B, K, C); of peaks their heights too, confidence (B, K)
        :raises ValueError: when the frames have another shape or type
        """
        found = self.candidates(frames)
        count = self.num_keypoints
        return Keypoints(*(None if part is None else part[:, :count] for part in found))

    def tracker(self) -> KeypointTracker | None:
        """What follows the `candidates` of consecutive frames; None where keypoints keep their order by themselves."""
        if not self.readout.kind.needs_tracking:
            return None
        return KeypointTracker(self.num_keypoints, self.readout.persistence or 1.0)

    def candidates(self, frames: np.ndarray) -> Keypoints:
        """What `detect` gives, and where keypoints persist more, from which a tracker chooses.

        :param frames: as for `detect`
        :raises ValueError: when the frames have another shape or type
        """
        frames = self._checked(frames)
        if self._rival is not None and len(frames):
            return self._compete(frames, self._rival)
        return self._found(frames)

    def _compete(self, frames: np.ndarray, rival: KeypointDetector) -> Keypoints:
        """What this one finds, while the rival's time is taken too; once it is decided, the quicker one goes on."""
        keypoints = self._placement.time(lambda: self._found(frames), lambda: rival.candidates(frames))
        if self._placement.is_over:
            self._rival = None
            here, there = (f"{1000 * seconds:.1f} ms" for seconds in self._placement.medians)
            if self._placement.second_is_quicker:
                self._captured = None
                for name in ("device", "model", "_read", "precision", "streaming", "network", "memory", "_trial"):
                    setattr(self, name, getattr(rival, name))
            LOGGER.info(
                "keypoints of %s are computed on %s: %s on the GPU, %s on the CPU, streaming",
                *(self.source, self.device, here, there),
            )
        return keypoints

    def _found(self, frames: np.ndarray) -> Keypoints:
        if self.memory is not None and len(frames):
            keypoints = self.memory.recall(frames, self._detect)
        else:
            keypoints = self._detect(frames)
        if self._trial is not None and len(rows := self._trial.rows(len(frames))):
            exact_network = self.model.frozen(torch.float32, streaming=self.streaming)
            exact = self._detect(frames[rows], exact_network)
            difference_px = largest_difference_px(keypoints.centers[rows], exact.centers)
            if difference_px > LARGEST_DIFFERENCE_PX:
                warnings.warn(
                    f"bfloat16 moves a keypoint of {self.source} by {difference_px:.2f} px, more than "
                    f"{LARGEST_DIFFERENCE_PX}: its keypoints are computed in float32",
                    stacklevel=2,
                )
                self._use(exact_network)
                self.precision, self._trial = torch.float32, None
                return self._detect(frames)
        return keypoints

    def error_maps(self, frames: np.ndarray) -> np.ndarray:
        """Error maps of frames uint8 (B, 84, 84, C): float32 (B, M, 84, 84) in [0, 1].

        :raises ValueError: when the model has none, or the frames have another shape or type
        """
        require_error_maps(self.model, self.source)
        with torch.inference_mode():
            return self.network.error_maps(self._checked(frames)).cpu().numpy()

    def layer_error_maps(self, frames: np.ndarray) -> list[np.ndarray]:
        """Each layer's error maps of frames uint8 (B, 84, 84, C), one value a patch: float32 (B, h, w) in [0, 1].

        :raises ValueError: when the model has none, or the frames have another shape or type
        """
        require_error_maps(self.model, self.source)
        with torch.inference_mode():
            return [layer.cpu().numpy() for layer in self.network.layer_error_maps(self._checked(frames))]

    def check_channels(self, channels: int) -> None:
        """Raise CheckpointError unless the model takes images of that many channels."""
        if channels != self.config.image_channels:
            raise CheckpointError(
                f"{self.source} takes images of {self.config.image_channels} channel(s), but the frames have {channels}"
            )

    def _checked(self, frames: np.ndarray) -> np.ndarray:
        frames = np.ascontiguousarray(frames)
        expected = (IMAGE_SIZE, IMAGE_SIZE)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:3] != expected:
            raise ValueError(f"frames must be uint8 (B, 84, 84, C), not {frames.dtype} {frames.shape}")
        self.check_channels(frames.shape[3])
        return frames

    def _use(self, network: FrozenModel) -> None:
        self.network = network
        captures = self.cuda_graph and self.device.type == "cuda"
        self._captured = CapturedCall(partial(self._computed, network), most=MOST_CAPTURES) if captures else None

    def _detect(self, frames: np.ndarray, network: FrozenModel | None = None) -> Keypoints:
        with torch.inference_mode():
            if self._captured is None or network is not None:
                found = self._computed(network or self.network, frames)
            else:
                found = self._captured(to_device({"frames": frames}, self.device)["frames"])
            return Keypoints(*to_host([part for part in found if part is not None]))

    def _computed(self, network: FrozenModel, frames: np.ndarray | torch.Tensor) -> Keypoints:
        centers, features, confidence = self._read(network, frames)
        return Keypoints(centers.clamp(-1, 1), features, None if confidence is None else confidence.clamp(0, 1))


def largest_difference_px(centers: np.ndarray, others: np.ndarray) -> float:
    """Largest distance between two detections' keypoints (B, K, 2) of the same number, in pixels."""
    return float(np.linalg.norm(centers - others, axis=-1).max()) * (IMAGE_SIZE - 1) / 2


def frozen_copy(model_or_path: KeypointModel | str | Path) -> KeypointModel:
    """A copy in evaluation mode without gradients, of a model or of a checkpoint's model."""
    if isinstance(model_or_path, KeypointModel):
        model = type(model_or_path)(model_or_path.config)
        model.load_state_dict(model_or_path.state_dict())
    else:
        model = load_checkpoint(model_or_path)
    return model.requires_grad_(False).eval()
