"""Training an agent on a game or in an environment of one's own, with validation and the best checkpoint kept."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import tyro
from gymnasium.wrappers import TransformReward
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecTransposeImage

from sb3_permakey.common.recurrent_q_learning import RecurrentQLearning
from sb3_permakey.common.run_checkpoint import RunCheckpoint, load_run, save_run
from sb3_permakey.encoders import KeypointEncoder
from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.envs.keypoint_space import KeypointSpace
from sb3_permakey.envs.keypoints import VecPermaKeyObservation
from sb3_permakey.envs.named import LEARNED_IN, NamedEnvironment
from sb3_permakey.envs.novelty import VecKeypointNovelty
from sb3_permakey.envs.own import require_discrete_actions
from sb3_permakey.files import atomic_file, locked_folder
from sb3_permakey.keypoints import ReadoutConfig, warn_of_another_game
from sb3_permakey.keypoints.device import resolve_device
from sb3_permakey.settings import (
    NO_DEFAULT,
    require_at_least,
    require_one,
    require_positive,
    require_range,
    require_seed,
)
from sb3_permakey.training.help import READOUT_HELP, aggregate_of, context_of, values_of_argument, values_of_presets
from sb3_permakey.training.presets import (
    ALGORITHMS,
    PRESETS,
    AlgorithmName,
    Preset,
    PresetName,
    choose_agent,
    context_in,
    default_arguments,
    preset_arguments,
    reads_images,
)
from sb3_permakey.training.run_folder import FINAL_MODEL, MAY_CHANGE, RUN, begin, go_on, run_goes_on
from sb3_permakey.training.validation import (
    BEST_MODEL,
    FIRST_VALIDATION_SEED,
    VALIDATION_ENVS,
    VALIDATION_STEPS,
    VALIDATIONS,
    Validation,
)


@dataclass(frozen=True)
class TrainConfig:
    """Train an agent on an Atari game, or in an environment of your own; flags from --history on are rarely needed."""

    game: Annotated[str | None, NO_DEFAULT] = None
    """Game, e.g. MsPacman."""
    env: Annotated[str | None, NO_DEFAULT] = None
    """Instead of a game your own environment, module:function, or an id of gymnasium's."""
    out: Path = field(kw_only=True)
    """Folder for models and logs."""
    checkpoint: Annotated[Path | None, NO_DEFAULT] = None
    """Keypoint checkpoint, a file or a name that `sb3-permakey checkpoints` lists; without it the agent sees pixels."""
    algo: Annotated[AlgorithmName | None, tyro.conf.arg(help_behavior_hint="(the preset's)")] = None
    """Who learns."""
    preset: Annotated[PresetName | None, tyro.conf.arg(help_behavior_hint="(paper; with --algo rainbow: rainbow)")] = (
        None
    )
    """The agent where no flag says more. rainbow: learns furthest. strong: that, or the best of a recurrent --algo."""
    steps: int = 100_000
    """Agent steps."""
    num_envs: int = 1
    """Environments played at once, which share the steps."""
    device: str = "auto"
    """Where to train, e.g. cpu or cuda."""
    seed: int = 0
    """Seed of all that is random."""
    validate_every: int = 10_000
    """Agent steps between two validations, whose scores are printed."""
    validation_episodes: int = 10
    """Whole games of each validation, each of its actions random with probability .001."""
    progress: bool = True
    """Show a bar of the progress."""
    tensorboard: bool = True
    """Write TensorBoard logs."""
    resume: bool = False
    """Go on with a run that was killed; a finished one goes on by more --steps alone."""
    history: Annotated[int | None, values_of_presets(lambda preset: preset.history)] = None
    """Last displacements that each keypoint carries."""
    encoder: Annotated[KeypointEncoder | None, values_of_presets(lambda preset: preset.encoder)] = None
    """Keypoint encoder."""
    aggregate: Annotated[Literal["concat", "pool"] | None, values_of_presets(aggregate_of)] = None
    """How the GNN joins nodes."""
    context: Annotated[Literal["none", "image", "glimpses"] | None, values_of_presets(context_of)] = None
    """What the encoder pairs reads beside keypoints: the whole frame, or what lies around each keypoint."""
    novelty: Annotated[float | None, values_of_presets(lambda preset: preset.novelty)] = None
    """Scale of a bonus, in training alone, for keypoints where none of their kind was."""
    distractor: Annotated[DistractorKind | None, NO_DEFAULT] = None
    """Bars of noisy Atari, in training and validation."""
    learning_rate: Annotated[float | None, values_of_argument("learning_rate")] = None
    """Adam's learning rate."""
    learning_starts: Annotated[int | None, values_of_argument("learning_starts")] = None
    """Random steps before learning starts."""
    batch_size: Annotated[int | None, values_of_argument("batch_size")] = None
    """Windows in a batch; of Rainbow transitions."""
    sequence_length: Annotated[int | None, values_of_argument("sequence_length")] = None
    """Steps of a window; not of Rainbow."""
    train_freq: Annotated[int | None, values_of_argument("train_freq")] = None
    """Agent steps between updates."""
    exploration_fraction: Annotated[float | None, values_of_argument("exploration_fraction")] = None
    """Part of the training over which epsilon falls."""
    exploration_final_eps: Annotated[float | None, values_of_argument("exploration_final_eps")] = None
    """Epsilon from then on."""
    buffer_size: Annotated[int | None, values_of_argument("buffer_size")] = None
    """Steps in the replay buffer."""
    reward_scale: float = 1.0
    """Factor on an env's rewards in training; Rainbow tells returns from -10 to 10 apart."""
    save_every: int = 10_000
    """Agent steps between two checkpoints of the run, from which --resume goes on."""
    readout: Annotated[ReadoutConfig, tyro.conf.arg(help=READOUT_HELP)] = field(default_factory=ReadoutConfig)
    """How keypoints are read; by the preset's readout where none is named."""

    def __post_init__(self) -> None:
        require_one(game=self.game, env=self.env)
        if self.env is None and self.reward_scale != type(self).reward_scale:
            raise ValueError("reward_scale is of an env: a game's rewards are clipped")
        require_at_least(
            1,
            steps=self.steps,
            num_envs=self.num_envs,
            validate_every=self.validate_every,
            validation_episodes=self.validation_episodes,
            batch_size=self.batch_size,
            sequence_length=self.sequence_length,
            train_freq=self.train_freq,
            buffer_size=self.buffer_size,
            save_every=self.save_every,
        )
        require_at_least(0, learning_starts=self.learning_starts, history=self.history, novelty=self.novelty)
        require_positive(reward_scale=self.reward_scale)
        require_positive(learning_rate=self.learning_rate, exploration_fraction=self.exploration_fraction)
        require_range(
            0, 1, exploration_fraction=self.exploration_fraction, exploration_final_eps=self.exploration_final_eps
        )
        require_seed(self.seed, FIRST_VALIDATION_SEED - self.num_envs - 1)
        algorithm, _ = choose_agent(self.algo, self.preset)
        if algorithm == "rainbow" and not self.checkpoint:
            raise ValueError(
                "rainbow has no memory, and one frame shows no motion: give the checkpoint of keypoints, or "
                "--algo recurrent-dqn"
            )
        if algorithm == "rainbow" and self.sequence_length:
            raise ValueError("sequence_length is of agents with a memory, which rainbow has not")
        learning_starts = all_arguments(self)["learning_starts"]
        if self.steps <= learning_starts:
            raise ValueError(
                f"steps must be more than learning_starts, {learning_starts}, before which nothing is learned, "
                f"not {self.steps}"
            )
        if self.checkpoint:
            wanted_readout(self)
        else:
            of_keypoints = ("history", "encoder", "aggregate", "context", "novelty")
            others = [name for name in of_keypoints if getattr(self, name) is not None]
            for name in (*(("readout",) if self.readout.is_named else ()), *self.readout.given(), *others):
                raise ValueError(f"{name} is of keypoints: give the checkpoint that makes them")
        if self.aggregate and encoder_of(self) != "gnn":
            raise ValueError(f"aggregate is the GNN's: it needs the encoder gnn, not {encoder_of(self)}")
        if self.context and encoder_of(self) != "pairs":
            raise ValueError(f"context is of the encoder pairs, not of {encoder_of(self)}")

    @property
    def environment(self) -> NamedEnvironment:
        """Where the agent learns."""
        return NamedEnvironment(self.game, self.env)


COMPARED = (
    *dict.fromkeys(
        one.name
        for one in (*fields(TrainConfig), *fields(ReadoutConfig))
        if one.name not in (*MAY_CHANGE, "out", "resume", "checkpoint")
    ),
    "checkpoint_sha256",
)
"""Settings that a run keeps when it goes on; a checkpoint is compared by its content."""


def train(config: TrainConfig) -> Path:
    """Train; keep the model with the best mean score over the validation games, and the last one.

    The folder keeps the run's last checkpoint too, from which it goes on: with `resume` when it was killed, or when the
    finished run is asked for more steps.

    :param config: the run's settings
    :return: path of the best model
    :raises UnknownGameError: when there is no such game
    :raises OwnEnvironmentError: when there is no such environment, or it has no frames or no Discrete actions
    :raises ValueError: when the folder already holds a trained agent, another run, or a killed one that is not to be
        resumed
    :raises WriteError: when the folder cannot be written, or another run is writing it
    """
    name = config.environment.name
    resolve_device(config.device)
    if config.checkpoint:
        warn_of_another_game(config.checkpoint, name)
    out, kept = config.out, (config.out / BEST_MODEL, config.out / VALIDATIONS)
    with locked_folder(out), ExitStack() as opened:
        env = opened.enter_context(closing(training_envs(config)))
        require_discrete_actions(env.action_space, name)
        settings = run_settings(config, env)
        if run_goes_on(out, settings, COMPARED, resume=config.resume):
            model = load_run(algorithm_of(config), out / RUN, env, kept, device=config.device)
            model.tensorboard_log = tensorboard_folder(config)
            go_on(out, settings)
        else:
            model = new_agent(config, env)
            begin(out, settings)
        validated = opened.enter_context(closing(validation_envs(config)))
        model.learn(
            config.steps - model.num_timesteps,
            callback=[
                Validation(validated, out, config.validate_every, config.validation_episodes, verbose=1),
                RunCheckpoint(out / RUN, config.save_every, kept),
            ],
            progress_bar=config.progress,
            tb_log_name=config.environment.file_name,
            reset_num_timesteps=model.num_timesteps == 0,
        )
        with atomic_file(out / FINAL_MODEL) as file:
            model.save(file)  # type: ignore[arg-type]
        save_run(model, out / RUN, kept)
    return out / BEST_MODEL if (out / BEST_MODEL).exists() else out / FINAL_MODEL


def run_settings(config: TrainConfig, env: VecEnv) -> dict[str, Any]:
    """All settings of a run, as JSON gives them back: the agent's, and which model makes its keypoints."""
    model = {"checkpoint_sha256": getattr(env.observation_space, "fingerprint", None)}
    chosen = dict(zip(("algo", "preset"), choose_agent(config.algo, config.preset), strict=True))
    space = env.observation_space
    read = {**asdict(wanted_readout(config)), "history": history_of(config), "encoder": encoder_of(config)}
    read["novelty"] = novelty_of(config)
    if isinstance(space, KeypointSpace) and space.readout is not None:
        read["readout"] = space.readout.readout
    read["context"] = context_in(agent_arguments(config))
    game = config.environment.name if config.env is None else None
    settings = {**asdict(config), "game": game, **chosen, **read, **all_arguments(config)}
    return json.loads(json.dumps({**settings, **model}, default=str))


def algorithm_of(config: TrainConfig) -> type[RecurrentQLearning]:
    """Who learns."""
    return ALGORITHMS[choose_agent(config.algo, config.preset)[0]]


def new_agent(config: TrainConfig, env: VecEnv) -> RecurrentQLearning:
    """The agent that the settings describe."""
    agent = algorithm_of(config)(
        "PermaKeyPolicy" if config.checkpoint else "CnnLstmPolicy",
        env,
        tensorboard_log=tensorboard_folder(config),
        **agent_arguments(config) | updates_for_steps(config),
    )
    setattr(agent, LEARNED_IN, config.environment.id)
    return agent


def tensorboard_folder(config: TrainConfig) -> str | None:
    """Where TensorBoard's logs go; None where none are wanted."""
    return str(config.out / "tensorboard") if config.tensorboard else None


def updates_for_steps(config: TrainConfig) -> dict[str, int]:
    """train_freq and gradient_steps with which several environments make as many updates for their steps as one does.

    SB3 counts train_freq in steps of all environments at once, each of which is `num_envs` agent steps.
    """
    arguments = all_arguments(config)
    common = math.gcd(arguments["train_freq"], config.num_envs)
    updates = arguments["gradient_steps"] * (config.num_envs // common)
    return {"train_freq": arguments["train_freq"] // common, "gradient_steps": updates}


def agent_arguments(config: TrainConfig) -> dict[str, Any]:
    """The agent's arguments beside its defaults: the preset's, and whatever the settings say themselves."""
    algorithm, preset = choose_agent(config.algo, config.preset)
    encoder = encoder_of(config)
    arguments = preset_arguments(preset, encoder)
    own = default_arguments(algorithm)
    arguments |= {name: getattr(config, name) for name in own if getattr(config, name, None) is not None}
    if config.env is not None and "value_rescaling" in own:
        # Nobody clips the rewards of an environment of one's own.
        arguments.setdefault("value_rescaling", True)
    if encoder == "gnn" and config.aggregate:
        arguments["policy_kwargs"].setdefault("features_extractor_kwargs", {})["aggregate"] = config.aggregate
    if encoder == "pairs" and config.context:
        context = None if config.context == "none" else config.context
        arguments["policy_kwargs"].setdefault("features_extractor_kwargs", {})["context"] = context
    return arguments


def all_arguments(config: TrainConfig) -> dict[str, Any]:
    """The agent's arguments, its defaults among them."""
    return {**default_arguments(choose_agent(config.algo, config.preset)[0]), **agent_arguments(config)}


def encoder_of(config: TrainConfig) -> KeypointEncoder | None:
    """The encoder of keypoints, as the settings say, or else the preset; None for pixels."""
    return (config.encoder or _preset_of(config).encoder) if config.checkpoint else None


def history_of(config: TrainConfig) -> int:
    """How many of its last displacements each keypoint carries, as the settings say, or else the preset."""
    return _preset_of(config).history if config.history is None else config.history


def novelty_of(config: TrainConfig) -> float:
    """Scale of the bonus for keypoints in new places, as the settings say, or else the preset; 0 for pixels."""
    if config.checkpoint is None:
        return 0.0
    return _preset_of(config).novelty if config.novelty is None else config.novelty


def _preset_of(config: TrainConfig) -> Preset:
    return PRESETS[choose_agent(config.algo, config.preset)[1]]


def training_envs(config: TrainConfig) -> VecEnv:
    """The environments to learn in, with the bonus for what is new where there is one."""
    envs = make_envs(config, config.num_envs, config.seed)
    novelty = novelty_of(config)
    return VecKeypointNovelty(envs, novelty, config.seed) if novelty else envs


def validation_envs(config: TrainConfig) -> VecEnv:
    """The environments of the validation games."""
    count = min(config.validation_episodes, VALIDATION_ENVS)
    return make_envs(config, count, FIRST_VALIDATION_SEED, max_steps=VALIDATION_STEPS)


def wanted_readout(config: TrainConfig) -> ReadoutConfig:
    """How keypoints are read: as the settings say, or else the preset."""
    return config.readout.named(_preset_of(config).readout)


def make_envs(config: TrainConfig, count: int, first_seed: int, max_steps: int | None = None) -> VecEnv:
    """Environments as the agent sees them, seeded from `first_seed` on, their games cut after `max_steps`."""

    def make(seed: int) -> gym.Env:
        env = config.environment.make(seed=seed, distractor=config.distractor, max_steps=max_steps)
        if config.reward_scale != 1:
            env = TransformReward(env, lambda reward: config.reward_scale * float(reward))
        return env

    envs: VecEnv = DummyVecEnv([partial(make, first_seed + index) for index in range(count)])
    keep_image = reads_images(agent_arguments(config))
    if config.checkpoint:
        envs = VecPermaKeyObservation(
            envs,
            config.checkpoint,
            keep_image=keep_image,
            history=history_of(config),
            device=config.device,
            readout=wanted_readout(config),
        )
    return VecTransposeImage(envs) if keep_image or not config.checkpoint else envs
