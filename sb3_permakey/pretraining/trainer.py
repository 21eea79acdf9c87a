"""The pretraining loop: frames to a checkpoint, resumable at any moment."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from sb3_permakey.envs.atari import PREPROCESSING
from sb3_permakey.figures import keypoint_panel
from sb3_permakey.files import locked_folder, require_writable
from sb3_permakey.frames.reader import FrameReader
from sb3_permakey.frames.store import FrameStore, FrameStoreError
from sb3_permakey.keypoints import (
    READOUTS,
    CheckpointError,
    KeypointDetector,
    KeypointModel,
    load_checkpoint,
    save_checkpoint,
    save_for_detection,
)
from sb3_permakey.keypoints.checkpoint import GAME
from sb3_permakey.keypoints.device import freed_memory_kept, place, resolve_device, resolve_precision
from sb3_permakey.pretraining.config import PretrainConfig
from sb3_permakey.pretraining.distributed import Workers, share_batch_norm
from sb3_permakey.pretraining.logs import TrainingLog
from sb3_permakey.pretraining.stages import Stage, StageParts, StagePlan, stages_of
from sb3_permakey.pretraining.state import Progress, SavedState, load_state, save_state
from sb3_permakey.pretraining.threads import StepThreads, threads_are_free
from sb3_permakey.pretraining.unread_losses import UnreadLosses

LIMITS_AND_PLACES = (
    "out",
    "epochs",
    "max_steps",
    "pointnet_steps",
    "max_minutes",
    "device",
    "save_every_s",
    "picture_every_steps",
    "score",
    "compile",
)
"""Settings that may differ when a run goes on."""
PICTURE_FRAMES = 6


def pretrain(config: PretrainConfig) -> Path:
    """Train a keypoint model; a run that was stopped goes on, and so does a finished one that may now be longer.

    A finished run whose steps, epochs and minutes leave nothing to do is not done again. The frames are there: those of
    a game are collected by `sb3_permakey.commands.pretrain`.

    The checkpoint holds the last weights. Early stopping ends a run but does not go back to its best validation loss:
    the LSPN predicts features that change while the encoder learns, so that a lower loss does not mark a better model.

    Under torchrun each process trains on its part of every batch, and the first one writes the files. Otherwise a CPU's
    threads are as many as make steps fastest, unless OMP_NUM_THREADS or torch.set_num_threads says how many.

    :param config: the run's settings
    :return: path of the checkpoint
    :raises FrameStoreError: when the frames are missing, broken or made with other preprocessing
    :raises StateError: when the folder of the run belongs to one with other settings
    :raises CheckpointError: when `frozen_from` names no good checkpoint or one with other settings
    :raises WriteError: when checkpoint or state cannot be written, or another run is writing them
    """
    return Pretraining(config).run()


class Pretraining:
    """One run.

    :param config: the run's settings
    """

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.optimisation = config.optimisation
        self.folder = config.out.with_suffix(".pretraining")
        self.state_path = self.folder / "state.safetensors"
        self.store = FrameStore(config.frames_folder)
        self.store.require_preprocessing(PREPROCESSING)
        self.workers = Workers(resolve_device(config.device))
        self.device = self.workers.device
        settings = {name: value for name, value in asdict(config).items() if name not in LIMITS_AND_PLACES}
        self.settings = json.loads(json.dumps(settings, default=str))
        self.precision = resolve_precision(config.precision, self.device)
        torch.manual_seed(config.seed)
        self.model = place(self._make_model(), self.device)
        self._require_fit()
        self.reader = self._make_reader()
        if self.workers.count > 1:
            share_batch_norm(self.model)
        self.steps_per_epoch = self.reader.size("train") // self.optimisation.batch_size
        self.unread = UnreadLosses(self.state_path, at_once=self.device.type == "cpu")
        self.stages = self._plan()
        self.num_stages = len(self.stages)

    def run(self) -> Path:
        """Train what is left to train and write the checkpoint.

        :raises WriteError: when checkpoint or state cannot be written, or another run is writing them
        """
        self._load()
        goes_on = self._goes_on()
        if self.progress.finished and not goes_on:
            return self.config.out if self.config.out.exists() else self._write_checkpoint()
        require_writable(self.config.out, self.state_path)
        with locked_folder(self.folder) if self.workers.is_first else nullcontext():
            return self._train(self._load())

    def _load(self) -> SavedState | None:
        """Take up the saved state, if there is one."""
        saved = load_state(self.state_path, self.settings) if self.state_path.exists() else None
        self.progress = saved.progress if saved else Progress()
        if saved:
            self.model.load_state_dict(saved.model)
        self.started = time.monotonic() - self.progress.elapsed_s
        return saved

    def _goes_on(self) -> bool:
        """Whether the run has anything left to do; warns of steps that are wanted and cannot be made."""
        progress = self.progress
        if progress.stage >= self.num_stages:
            limits = [self._last_step(stage) for stage in range(self.num_stages)]
            if sum(limits) > progress.steps_before:
                warnings.warn(
                    f"{self.config.out} was finished by an earlier release, after {progress.steps_before} steps, and "
                    "cannot go on: give another out to train longer",
                    stacklevel=3,
                )
            return False
        is_patient, last_step = self._is_patient(), self._last_step(progress.stage)
        goes_on = progress.step < last_step and is_patient and not self._out_of_time()
        may_want_first = self.config.max_steps is not None or (progress.finished and goes_on)
        if progress.stage and may_want_first and self._last_step(0) > progress.steps_before:
            warnings.warn(
                f"the first stage of {self.config.out} ended after {progress.steps_before} steps and stays as it is, "
                "for the PointNet has learned from its error maps: give another out to train it longer",
                stacklevel=3,
            )
        return goes_on

    @freed_memory_kept()
    def _train(self, saved: SavedState | None) -> Path:
        """Train from the saved state on, or from the start."""
        self.progress.finished = False
        self.workers.wait()
        self.threads = StepThreads(tqdm.write, free=threads_are_free(self.device, self.workers.count))
        try:
            while True:
                stage = self._make_stage()
                optimizer = self._make_optimizer(stage)
                if saved:
                    saved.restore_optimizer(optimizer)
                    saved = None
                self._train_stage(stage, optimizer)
                if self.progress.stage == self.num_stages - 1:
                    break
                self.progress.next_stage()
            self.progress.finished = True
            if self.workers.is_first:
                self._write_checkpoint()
            self._save(optimizer)
        finally:
            self.threads.release()
            self.workers.leave()
        return self.config.out

    def _make_reader(self) -> FrameReader:
        return FrameReader(self.store, self.device, self.config.distractor, self.config.seed)

    def _plan(self) -> list[StagePlan]:
        return stages_of(self.model, StageParts(self.config, self.reader, self.precision, self.folder, self.workers))

    def _make_model(self) -> KeypointModel:
        config = self.config
        if not config.frozen_from:
            return config.make_model()
        source, model = load_checkpoint(config.frozen_from), config.make_model()
        try:
            model.take_over(source)
        except ValueError as error:
            raise CheckpointError(f"{config.frozen_from} {error}") from error
        return model

    def _write_checkpoint(self) -> Path:
        """The checkpoint; of a model that took its frozen modules from one for detection only, another such one."""
        save = save_for_detection if self.model.for_detection_only else save_checkpoint
        return save(self.model, self.config.out, metadata={GAME: self.store.game})

    def _make_stage(self) -> Stage:
        return self.stages[self.progress.stage].make()

    def _make_optimizer(self, stage: Stage) -> torch.optim.Optimizer:
        """Adam; on a GPU as one launch."""
        fused = True if self.device.type == "cuda" else None
        return torch.optim.Adam(stage.parameters(), lr=stage.learning_rate, fused=fused)

    def _losses_of(self, stage: Stage) -> Callable[..., Any]:
        """What computes the losses; where they are compiled, replayed on a GPU with few launches."""
        if not self.config.compile:
            return stage.compute
        return torch.compile(stage.compute, mode="reduce-overhead" if self.device.type == "cuda" else None)

    def _last_step(self, stage: int) -> int:
        """Steps of the stage of that number at most."""
        limit = self.stages[stage].max_steps
        most = self.steps_per_epoch * self.config.epochs
        return most if limit is None else min(most, limit)

    def _train_stage(self, stage: Stage, optimizer: torch.optim.Optimizer) -> None:
        progress, last_step, is_patient = self.progress, self._last_step(self.progress.stage), self._is_patient()
        compute = self.workers.wrap(self.model, self._losses_of(stage))
        log: TrainingLog | None = None
        saved_at = time.monotonic()
        self.threads.begin(stage.name)
        with tqdm(total=last_step, initial=progress.step, desc=stage.name, disable=not self.workers.is_first) as bar:
            try:
                while is_patient and progress.step < last_step and not self._out_of_time():
                    with self.threads.step():
                        losses = self._train_step(stage, compute, optimizer)
                    bar.update()
                    if log is None and self.workers.is_first:
                        log = TrainingLog(self.folder, progress.steps_before + progress.step - 1, losses._fields)
                    if progress.step % self.config.log_every_steps == 0:
                        self.unread.read()
                        losses = self._mean(losses)
                        bar.set_postfix({name: f"{float(value):.4g}" for name, value in losses._asdict().items()})
                        self._log_losses(log, "train", losses)
                    if progress.step % self.config.picture_every_steps == 0:
                        self._log_picture(log)
                    if progress.step % self.steps_per_epoch == 0:
                        is_patient = self._validate(stage, log)
                    if time.monotonic() - saved_at > self.config.save_every_s:
                        self._save(optimizer)
                        saved_at = time.monotonic()
                self._log_picture(log)
            finally:
                if log:
                    log.close()
        self._save(optimizer)

    def _train_step(self, stage: Stage, compute: Callable[..., Any], optimizer: torch.optim.Optimizer) -> Any:
        """One update; order of frames and everything random depend on the seed and the step alone."""
        config, progress, batch_size = self.config, self.progress, self.optimisation.batch_size
        epoch, position = divmod(progress.step, self.steps_per_epoch)
        order = np.random.default_rng((config.seed, progress.stage, epoch)).permutation(stage.size("train"))
        indices = np.sort(order[position * batch_size : (position + 1) * batch_size])
        decay = self.optimisation.decay_rate ** (progress.step // self.optimisation.decay_steps)
        self.learning_rate = stage.learning_rate * decay
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate
        stage.set_training_mode(True)
        losses = compute(*stage.inputs("train", self.workers.shard(indices), seed=(config.seed, progress.step)))
        loss = self.model.total_loss(losses)
        self.unread.note(progress.step, loss, losses)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        progress.step += 1
        return type(losses)(*(value.detach() for value in losses))

    def _mean(self, losses: Any) -> Any:
        """The losses' means over all processes, on the host."""
        return type(losses)(*self.workers.mean(torch.stack(list(losses))).cpu())

    @torch.inference_mode()
    def _validate(self, stage: Stage, log: TrainingLog | None) -> bool:
        """Log the validation losses; False when they have not improved for `patience_epochs`."""
        self.unread.read()
        stage.set_training_mode(False)
        size, batch_size = stage.size("valid"), self.optimisation.batch_size
        batches = [np.arange(start, min(start + batch_size, size)) for start in range(0, size, batch_size)]
        batch_losses = [stage.compute(*stage.inputs("valid", batch, seed=None)) for batch in batches]
        weights = torch.tensor([len(batch) / size for batch in batches], device=self.device)
        stacked = torch.stack([torch.stack(list(losses)) for losses in batch_losses])
        losses = type(batch_losses[0])(*(stacked * weights[:, None]).sum(0).cpu())
        self._log_losses(log, "valid", losses)
        loss, progress = float(self.model.stopping_loss(losses)), self.progress
        improved = loss < progress.best_loss
        progress.best_loss = min(loss, progress.best_loss)
        progress.epochs_without_improvement = 0 if improved else progress.epochs_without_improvement + 1
        return self._is_patient()

    def _is_patient(self) -> bool:
        return self.workers.agree(self.progress.epochs_without_improvement < self.optimisation.patience_epochs)

    def _log_losses(self, log: TrainingLog | None, split: str, losses: Any) -> None:
        if log:
            log.losses(self.progress.steps_before + self.progress.step, split, losses, self.learning_rate)

    def _log_picture(self, log: TrainingLog | None) -> None:
        if not log:
            return
        chosen = np.linspace(0, self.reader.size("valid") - 1, PICTURE_FRAMES).astype(int)
        readout = next(kind.name for kind in READOUTS.values() if kind.reads(self.model))
        detector = KeypointDetector(self.model, device=self.device, precision="float32", readout=readout)
        frames = self.reader.frames("valid", chosen)
        log.picture(self.progress.steps_before + self.progress.step, keypoint_panel([detector], frames))

    def _out_of_time(self) -> bool:
        if self.config.max_minutes is None:
            return False
        share = self.config.first_stage_share if self.progress.stage < self.num_stages - 1 else 1.0
        return self.workers.agree(time.monotonic() - self.started >= 60 * self.config.max_minutes * share)

    def _save(self, optimizer: torch.optim.Optimizer) -> None:
        self.unread.read()
        self.progress.elapsed_s = time.monotonic() - self.started
        if self.workers.is_first:
            save_state(self.state_path, self.model, optimizer, self.progress, self.settings)

    def _require_fit(self) -> None:
        batch_size = self.optimisation.batch_size
        channels, expected = self.store.splits["train"].shape[-1], self.model.config.image_channels
        if channels != expected:
            raise FrameStoreError(f"{self.store.path} holds frames of {channels} channels, the model takes {expected}")
        if len(self.store.splits["train"]) < batch_size:
            raise FrameStoreError(
                f"{self.store.path} holds {len(self.store.splits['train'])} training frames, "
                f"fewer than a batch of {batch_size}"
            )
        if batch_size % self.workers.count:
            raise ValueError(f"a batch of {batch_size} cannot be divided among {self.workers.count} processes")
