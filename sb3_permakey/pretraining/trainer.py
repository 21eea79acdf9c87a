"""The pretraining loop: frames to a checkpoint, resumable at any moment."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from sb3_permakey.atari import PREPROCESSING
from sb3_permakey.figures import keypoint_panel
from sb3_permakey.keypoints import KeypointDetector, PermaKey, PermaKeyLosses, save_checkpoint
from sb3_permakey.precision import keep_freed_memory, place, resolve_device, resolve_precision
from sb3_permakey.pretraining.config import PretrainConfig
from sb3_permakey.pretraining.frames import FrameStore, FrameStoreError
from sb3_permakey.pretraining.logs import TrainingLog
from sb3_permakey.pretraining.stages import ErrorMapStage, FrameStage, Stage
from sb3_permakey.pretraining.state import Progress, load_state, save_state

LIMITS_AND_PLACES = (
    "out",
    "epochs",
    "max_steps",
    "max_minutes",
    "device",
    "save_every_s",
    "picture_every_steps",
)
"""Settings that may differ when a run goes on."""
PICTURE_FRAMES = 6


class TrainingDivergedError(RuntimeError):
    """A loss that is not finite; the last saved state is intact."""


def pretrain(config: PretrainConfig) -> Path:
    """Train a keypoint model; a run that was stopped goes on, a run that is done is not done again.

    The checkpoint holds the last weights. Early stopping ends a run but does not go back to its best validation loss:
    the LSPN predicts features that change while the encoder learns, so that a lower loss does not mark a better model.

    :param config: the run's settings
    :return: path of the checkpoint
    :raises FrameStoreError: when the frames are missing, broken or made with other preprocessing
    :raises StateError: when the folder of the run belongs to one with other settings
    """
    return Pretraining(config).run()


class Pretraining:
    """One run.

    :param config: the run's settings
    """

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.folder = config.out.with_suffix(".pretraining")
        self.state_path = self.folder / "state.safetensors"
        self.store = FrameStore(config.frames)
        self.store.require_preprocessing(PREPROCESSING)
        self._require_fit()
        settings = {name: value for name, value in asdict(config).items() if name not in LIMITS_AND_PLACES}
        self.settings = json.loads(json.dumps(settings, default=str))
        self.device = resolve_device(config.device)
        self.precision = resolve_precision(config.precision, self.device)
        torch.manual_seed(config.seed)
        self.model = place(PermaKey(config.model), self.device)
        self.num_stages = 2 if config.schedule == "staged" else 1

    def run(self) -> Path:
        """Train what is left to train and write the checkpoint."""
        saved = load_state(self.state_path, self.settings) if self.state_path.exists() else None
        self.progress = saved.progress if saved else Progress()
        if saved:
            self.model.load_state_dict(saved.model)
        if self.progress.finished:
            return self.config.out if self.config.out.exists() else save_checkpoint(self.model, self.config.out)
        keep_freed_memory()
        self.started = time.monotonic() - self.progress.elapsed_s
        self.log = TrainingLog(self.folder, self.progress.steps_before + self.progress.step)
        try:
            while self.progress.stage < self.num_stages:
                stage = self._make_stage()
                optimizer = torch.optim.Adam(stage.parameters(), lr=stage.learning_rate)
                if saved:
                    saved.restore_optimizer(optimizer)
                    saved = None
                self._train_stage(stage, optimizer)
                self.progress.next_stage()
            self.progress.finished = True
            save_checkpoint(self.model, self.config.out)
            self._save(optimizer)
        finally:
            self.log.close()
        return self.config.out

    def _make_stage(self) -> Stage:
        config = self.config
        if self.progress.stage == 1:
            return ErrorMapStage(
                self.model, self.store, self.precision, config.pointnet_learning_rate, self.folder, config.batch_size
            )
        joint = config.schedule == "joint"
        return FrameStage(self.model, self.store, self.precision, config.learning_rate, with_pointnet=joint)

    def _train_stage(self, stage: Stage, optimizer: torch.optim.Optimizer) -> None:
        config, progress = self.config, self.progress
        steps_per_epoch = stage.size("train") // config.batch_size
        last_step = steps_per_epoch * config.epochs
        if config.max_steps is not None:
            last_step = min(last_step, config.max_steps)
        saved_at = time.monotonic()
        with tqdm(total=last_step, initial=progress.step, unit="step", desc=stage.name) as bar:
            while progress.step < last_step and not self._out_of_time():
                losses = self._train_step(stage, optimizer, steps_per_epoch)
                bar.update()
                if progress.step % config.log_every_steps == 0:
                    self._log_losses("train", losses)
                    bar.set_postfix({name: f"{float(value):.4g}" for name, value in losses._asdict().items()})
                if progress.step % config.picture_every_steps == 0:
                    self._log_picture()
                if progress.step % steps_per_epoch == 0 and self._validate(stage):
                    break
                if time.monotonic() - saved_at > config.save_every_s:
                    self._save(optimizer)
                    saved_at = time.monotonic()
        self._log_picture()
        self._save(optimizer)

    def _train_step(self, stage: Stage, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> PermaKeyLosses:
        """One update; order of frames and noise depend on the seed and the step alone."""
        config, progress = self.config, self.progress
        epoch, position = divmod(progress.step, steps_per_epoch)
        order = np.random.default_rng((config.seed, progress.stage, epoch)).permutation(stage.size("train"))
        indices = np.sort(order[position * config.batch_size : (position + 1) * config.batch_size])
        self.learning_rate = stage.learning_rate * config.decay_rate ** (progress.step // config.decay_steps)
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate
        stage.set_training_mode(True)
        losses = stage.losses("train", indices, noise_seed=config.seed * 1_000_003 + progress.step)
        loss = self.model.total_loss(losses)
        if not torch.isfinite(loss):
            raise TrainingDivergedError(
                f"a loss is not finite at step {progress.step}: {losses._asdict()}; "
                f"{self.state_path} is the last good state"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        progress.step += 1
        return PermaKeyLosses(*(value.detach() for value in losses))

    @torch.inference_mode()
    def _validate(self, stage: Stage) -> bool:
        """Log the validation losses; True when LSPN + PointNet have not improved for `patience_epochs`."""
        stage.set_training_mode(False)
        size, batch_size = stage.size("valid"), self.config.batch_size
        batches = [np.arange(start, min(start + batch_size, size)) for start in range(0, size, batch_size)]
        batch_losses = [torch.stack(list(stage.losses("valid", batch, noise_seed=None))) for batch in batches]
        weights = torch.tensor([len(batch) / size for batch in batches], device=self.device)
        losses = PermaKeyLosses(*(torch.stack(batch_losses) * weights[:, None]).sum(0))
        self._log_losses("valid", losses)
        loss, progress = float(losses.lspn + losses.pointnet), self.progress
        improved = loss < progress.best_loss
        progress.best_loss = min(loss, progress.best_loss)
        progress.epochs_without_improvement = 0 if improved else progress.epochs_without_improvement + 1
        return progress.epochs_without_improvement >= self.config.patience_epochs

    def _log_losses(self, split: str, losses: PermaKeyLosses) -> None:
        self.log.losses(self.progress.steps_before + self.progress.step, split, losses, self.learning_rate)

    def _log_picture(self) -> None:
        frames = self.store.splits["valid"]
        chosen = np.linspace(0, len(frames) - 1, PICTURE_FRAMES).astype(int)
        detector = KeypointDetector(self.model, device=self.device, precision="float32")
        self.log.picture(self.progress.steps_before + self.progress.step, keypoint_panel(detector, frames[chosen]))

    def _out_of_time(self) -> bool:
        if self.config.max_minutes is None:
            return False
        share = self.config.first_stage_share if self.progress.stage < self.num_stages - 1 else 1.0
        return time.monotonic() - self.started >= 60 * self.config.max_minutes * share

    def _save(self, optimizer: torch.optim.Optimizer) -> None:
        self.progress.elapsed_s = time.monotonic() - self.started
        save_state(self.state_path, self.model, optimizer, self.progress, self.settings)

    def _require_fit(self) -> None:
        config = self.config
        channels = self.store.splits["train"].shape[-1]
        if channels != config.model.image_channels:
            raise FrameStoreError(
                f"{config.frames} holds frames of {channels} channels, the model takes {config.model.image_channels}"
            )
        if len(self.store.splits["train"]) < config.batch_size:
            raise FrameStoreError(
                f"{config.frames} holds {len(self.store.splits['train'])} training frames, "
                f"fewer than a batch of {config.batch_size}"
            )
