"""What makes error maps better? One change at a time, scored by their peaks, which need no PointNet.

    python -m benchmarks.variants features --game Seaquest --frames frames/seaquest

Each variant trains VAE and LSPN for the same number of steps on the same frames. What better players bring: frames half
of which a trained agent played, scored on random play and, with another `--out`, on the agent's play:

    sb3-permakey train --game Seaquest --checkpoint seaquest-teacher --preset strong --steps 20000 \\
        --learning-starts 5000 --validate-every 5000 --out agent                       # SpaceInvaders: 30,000 steps
    sb3-permakey collect --game Seaquest --frames 16000 --policy random=0.5 agent/best_model.zip=0.5 \\
        --checkpoint seaquest-teacher --out frames/mixed
    python -m benchmarks.variants features --game Seaquest --frames frames/seaquest --mixed-frames frames/mixed \\
        --variants "as benchmarked" "half of the frames an agent's" --policy agent/best_model.zip \\
        --agent-checkpoint seaquest-teacher
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.harness.command import run_command
from benchmarks.keypoints.run import NUM_KEYPOINTS
from sb3_permakey.files import write_json
from sb3_permakey.keypoints import PermaKey, PermaKeyConfig, ReadoutConfig
from sb3_permakey.play.players import RANDOM
from sb3_permakey.pretraining.config import PretrainConfig
from sb3_permakey.pretraining.stages import Stage
from sb3_permakey.pretraining.trainer import Pretraining
from sb3_permakey.provenance import provenance
from sb3_permakey.scores import ScoreConfig, score


@dataclass(frozen=True)
class Variant:
    """A change of the first stage; the defaults are the benchmark's own."""

    layers: tuple[int, ...] = (0, 1)
    """Layers that the LSPN predicts."""
    kl_weight: float = 1.0
    """Weight of the KL term."""
    lspn_stride: int = 4
    """The LSPN learns from every so many-th image."""
    encoder_learns: bool = True
    """False: the LSPN predicts the features of a frozen random encoder."""
    mixed_frames: bool = False
    """Whether better players are among those who played the frames."""


VARIANTS = {
    "as benchmarked": Variant(),
    "random encoder": Variant(encoder_learns=False),
    "KL weight 0": Variant(kl_weight=0.0),
    "KL weight 4": Variant(kl_weight=4.0),
    "LSPN on every image (paper)": Variant(lspn_stride=1),
    "layers (0)": Variant(layers=(0,)),
    "layers (2, 3)": Variant(layers=(2, 3)),
    "layers (0, 1, 2, 3)": Variant(layers=(0, 1, 2, 3)),
    "half of the frames an agent's": Variant(mixed_frames=True),
}


@dataclass(frozen=True)
class FeatureBenchmark:
    """Train and score variants of VAE and LSPN."""

    game: str
    """Game, one of the paper's."""
    frames: Path
    """Frames to train on."""
    out: Path
    """JSON file; variants that it holds already are not trained again."""
    folder: Path = Path("runs/feature_variants")
    """Where checkpoints go."""
    mixed_frames: Path | None = None
    """Frames of random play and of better players."""
    variants: tuple[str, ...] = tuple(name for name, variant in VARIANTS.items() if not variant.mixed_frames)
    """Names of the variants."""
    policy: tuple[str, ...] = (RANDOM,)
    """Who plays the frames that are scored, as in `sb3-permakey score`."""
    agent_checkpoint: Path | None = None
    """Keypoint checkpoint of an agent that plays them, as in `sb3-permakey score`."""
    steps: int = 600
    """Training steps of 32 images."""
    seed: int = 0
    """Seed of the training."""

    def __post_init__(self) -> None:
        for name in self.variants:
            if name not in VARIANTS:
                raise ValueError(f"unknown variant {name!r}: one of {', '.join(VARIANTS)}")
            if VARIANTS[name].mixed_frames and self.mixed_frames is None:
                raise ValueError(f"{name!r} needs mixed_frames, the folder with an agent's frames")


class VariantPretraining(Pretraining):
    """The first stage alone, of a variant.

    :param config: the run's settings
    :param encoder_learns: False leaves the VAE as it was initialised
    """

    def __init__(self, config: PretrainConfig, *, encoder_learns: bool) -> None:
        super().__init__(config)
        self.num_stages = 1
        self.encoder_learns = encoder_learns

    def _make_stage(self) -> Stage:
        stage = super()._make_stage()
        if not self.encoder_learns:
            assert isinstance(self.model, PermaKey)
            stage.learning = [self.model.lspns]
        return stage


def train(name: str, variant: Variant, config: FeatureBenchmark) -> Path:
    """Train a variant; path of its checkpoint."""
    label = "".join(letter if letter.isalnum() else "_" for letter in name)
    model = PermaKeyConfig(num_keypoints=NUM_KEYPOINTS[config.game], layers=variant.layers, kl_weight=variant.kl_weight)
    settings = PretrainConfig(
        out=config.folder / f"{config.game.lower()}-{label}.safetensors",
        frames=config.mixed_frames if variant.mixed_frames else config.frames,
        model=model,
        schedule="staged",
        lspn_stride=variant.lspn_stride,
        max_steps=config.steps,
        seed=config.seed,
    )
    return VariantPretraining(settings, encoder_learns=variant.encoder_learns).run()


def main(config: FeatureBenchmark) -> None:
    """Train and score what the JSON file does not hold yet."""
    results = json.loads(config.out.read_text()) if config.out.exists() else {"variants": {}}
    results |= {"game": config.game, "config": json.loads(json.dumps(asdict(config), default=str)), **provenance()}
    to_score = ScoreConfig(
        ("checkpoint",),
        config.game,
        readout=ReadoutConfig("peaks"),
        policy=config.policy,
        agent_checkpoint=config.agent_checkpoint,
    )
    for name in config.variants:
        if name in results["variants"]:
            continue
        checkpoint = train(name, VARIANTS[name], config)
        scores = score(replace(to_score, checkpoints=(str(checkpoint),)))["scores"]["keypoints"]
        results["variants"][name] = scores
        write_json(config.out, results)
        print(f"{config.game}, {name}: F1 {scores['f1']['value']:.3f}", flush=True)


def command() -> None:
    """The command line."""
    run_command("variants.features", FeatureBenchmark, main)


if __name__ == "__main__":
    command()
