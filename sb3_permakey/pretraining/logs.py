"""What a pretraining run leaves behind to look at: losses.csv and TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from sb3_permakey.files import write_atomically


class TrainingLog:
    """Losses by step; rows after the step at which a run goes on are cut off.

    :param folder: where losses.csv and the TensorBoard files go
    :param step: the last step that counts, 0 for a new run
    :param losses: names of the losses
    """

    def __init__(self, folder: Path, step: int, losses: Sequence[str]) -> None:
        columns = ("step", "split", *losses, "learning_rate")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "losses.csv"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [line for line in lines[1:] if line.count(",") == len(columns) - 1 and int(line.split(",")[0]) <= step]
        write_atomically(self.path, "".join(f"{line}\n" for line in [",".join(columns), *kept]).encode())
        self.file = self.path.open("a", newline="")
        self.rows = csv.writer(self.file)
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def losses(self, step: int, split: str, losses: Any, learning_rate: float) -> None:
        """Write one row and its scalars, of a NamedTuple of losses."""
        values = [float(value) for value in losses]
        self.rows.writerow([step, split, *values, learning_rate])
        self.file.flush()
        for name, value in zip(losses._fields, values, strict=True):
            self.tensorboard.add_scalar(f"{split}/{name}", value, step)
        self.tensorboard.add_scalar("learning_rate", learning_rate, step)

    def picture(self, step: int, picture: np.ndarray) -> None:
        """Write a picture, uint8 (H, W, 3)."""
        self.tensorboard.add_image("keypoints and error maps", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self.file.close()
        self.tensorboard.close()
