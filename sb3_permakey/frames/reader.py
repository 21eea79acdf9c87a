"""Frames of a store as training reads them: with bars where wanted, on the device, as images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sb3_permakey.envs.distractors import NO_BAR, BarPlaces, DistractorKind, draw_bars, places_by_index
from sb3_permakey.frames.store import SPLITS, FrameStore, FrameStoreError
from sb3_permakey.keypoints.device import free_bytes
from sb3_permakey.keypoints.layers import images_of
from sb3_permakey.keypoints.transfer import to_device


class FrameReader:
    """Batches of a store's frames.

    On a GPU that has the room, the whole store lies in its memory, so that a batch costs no transfer.

    :param store: the store
    :param device: where the images are wanted
    :param distractor: bars to draw, at a place that split, index and seed decide
    :param seed: seed of the bars
    :param bars_every: bars are drawn on every so many-th frame alone
    :param most: frames of a split at most, an even selection of the store's
    :raises FrameStoreError: when bars are wanted and the store's frames have some already
    """

    def __init__(
        self,
        store: FrameStore,
        device: torch.device,
        distractor: DistractorKind | None = None,
        seed: int = 0,
        *,
        bars_every: int = 1,
        most: int | None = None,
    ) -> None:
        drawn = store.description.get("distractor")
        if distractor and drawn:
            raise FrameStoreError(f"{store.path} holds frames with {drawn} bars; draw bars on clean frames")
        self.store, self.device, self.distractor, self.seed = store, device, distractor, seed
        self.bars_every = bars_every
        self.chosen = {split: _even_selection(len(frames), most) for split, frames in store.splits.items()}
        self.on_device: dict[str, Tensor] = {}
        if distractor is None:
            self._move_to_device()

    def size(self, split: str) -> int:
        """Number of frames of a split."""
        return len(self.chosen[split])

    def has_bars(self, indices: np.ndarray) -> np.ndarray:
        """Which of the frames of these indices have bars drawn on them: bool (B,)."""
        return (np.asarray(indices) % self.bars_every == 0) & (self.distractor is not None)

    def frames(self, split: str, indices: np.ndarray) -> np.ndarray:
        """Frames uint8 (B, 84, 84, C), with their bars."""
        frames = self.store.splits[split][self.chosen[split][indices]]
        if self.distractor is None:
            return frames
        places = places_by_index(self.distractor, indices, (self.seed, SPLITS.index(split)), *frames.shape[1:3])
        drawn = self.has_bars(indices)
        return draw_bars(frames, BarPlaces(*(np.where(drawn, firsts, NO_BAR) for firsts in places)))

    def images(self, split: str, indices: np.ndarray) -> Tensor:
        """Images float32 (B, C, 84, 84) in [0, 1], on the device."""
        return self.given(split, to_device(self.asked(split, indices), self.device))

    def asked(self, split: str, indices: np.ndarray, name: str = "frames") -> dict[str, np.ndarray]:
        """What must go to the device for images, with the rest of a batch in one copy: frames, or where they lie there.

        :param split: the split
        :param indices: (B,) of its frames
        :param name: which of a batch's images they are
        """
        return {name: self.chosen[split][indices] if split in self.on_device else self.frames(split, indices)}

    def given(self, split: str, moved: Mapping[str, Tensor], name: str = "frames") -> Tensor:
        """The images, from what `asked` gave and was moved to the device."""
        frames = moved[name]
        return images_of(self.on_device[split][frames] if split in self.on_device else frames)

    def episode_bounds(self, split: str, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last frame, as indices of the split, of the episodes that the frames belong to.

        :raises ValueError: of a selection, where frames that follow each other are not neighbours
        """
        if self.size(split) < len(self.store.splits[split]):
            raise ValueError("a selection of frames has no episodes")
        episodes = sorted((one for one in self.store.episodes if one.split == split), key=lambda one: one.start)
        starts = np.array([episode.start for episode in episodes])
        lengths = np.array([episode.length for episode in episodes])
        chosen = np.searchsorted(starts, indices, side="right") - 1
        return starts[chosen], starts[chosen] + lengths[chosen] - 1

    def _move_to_device(self) -> None:
        free = free_bytes(self.device)
        if free is not None and sum(frames.nbytes for frames in self.store.splits.values()) < free / 2:
            for split, frames in self.store.splits.items():
                self.on_device[split] = torch.from_numpy(np.array(frames)).to(self.device)


def _even_selection(count: int, most: int | None) -> np.ndarray:
    """Indices of at most so many of `count` things, the middles of as many equal parts."""
    wanted = count if most is None else min(count, most)
    return (2 * np.arange(wanted) + 1) * count // max(2 * wanted, 1)
