"""The observation space of keypoints, which says how they are made."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_permakey.keypoints import KeypointDetector, ReadoutConfig, model_fingerprint
from sb3_permakey.keypoints.layers import IMAGE_SIZE
from sb3_permakey.keypoints.motion import JUMP
from sb3_permakey.keypoints.trunk import TrunkWeights

FRAME_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)


class KeypointSpace(spaces.Dict):
    """A Dict space of keypoints, and how they are made: what an agent's file carries of its keypoints.

    SB3 pickles an agent's observation space into its file, so that four things travel with it, whatever the algorithm:
    the model's `fingerprint`, the `readout` and the `history`, by which the right checkpoint gives the same keypoints
    again and another one is refused; and `trunk`, the frozen layers' weights, with which `KeypointCNN` is built
    wherever the checkpoint itself has gone. Spaces are equal only where the keypoints are made in the same way, as far
    as both say how: SB3 then refuses an agent the keypoints of another model.

    :param detector: the detector whose keypoints are observed
    :param keep_image: with an "image" entry
    :param history: how many displacements of each keypoint are in the entry "motion"; 0: no such entry
    """

    trunk: TrunkWeights | None = None
    """The model's layers up to the features that keypoints are found in."""
    history: int = 0
    """Stands for spaces saved before there was a history, too."""
    fingerprint: str | None = None
    """`model_fingerprint` of the model; None in spaces saved before there was one."""
    readout: ReadoutConfig | None = None
    """How the keypoints are read; None in spaces saved before there was a choice."""

    def __init__(self, detector: KeypointDetector, keep_image: bool, history: int = 0) -> None:
        count, channels = detector.num_keypoints, detector.feature_channels
        entries: dict[str, spaces.Space] = {
            "keypoints": spaces.Box(-1.0, 1.0, (count, 2), np.float32),
            "features": spaces.Box(0.0, np.inf, (count, channels), np.float32),
        }
        if detector.readout.kind.gives_confidence:
            entries["confidence"] = spaces.Box(0.0, 1.0, (count,), np.float32)
        if history:
            entries["motion"] = spaces.Box(-JUMP, JUMP, (count, 2 * history), np.float32)
        if keep_image:
            entries["image"] = spaces.Box(0, 255, FRAME_SHAPE, np.uint8)
        super().__init__(entries)
        self.trunk = detector.trunk
        self.readout = detector.readout
        self.fingerprint = model_fingerprint(detector.model)
        self.history = history

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and not (isinstance(other, KeypointSpace) and self.differences(other))

    def __repr__(self) -> str:
        made = ", ".join(f"{name} {value}" for name, value in self._made_by().items())
        return f"{super().__repr__()} (keypoints: {made})"

    def differences(self, other: KeypointSpace) -> str:
        """What makes these keypoints that does not make the other's: "model 01ab, not 23cd"; empty if it is all one."""
        mine, others = self._made_by(), other._made_by()
        return ", ".join(
            f"{name} {value}, not {others[name]}"
            for name, value in mine.items()
            if name in others and value != others[name]
        )

    def _made_by(self) -> dict[str, Any]:
        made = {"model": self.fingerprint[:12]} if self.fingerprint else {}
        return {**made, **(self.readout.in_use() if self.readout else {}), "history": self.history}
