import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MovingSquare

from benchmarks.variants import encoder_speed, encoders
from benchmarks.variants.encoder_agents import AGENTS, agents_table, encoder_of, games_of
from benchmarks.variants.encoder_speed import SPEED, VARIANTS
from benchmarks.variants.encoders import EncoderBenchmark, discounted, explained, judge, main, play, report
from sb3_permakey import PermaKeyObservation

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def settings(tmp_path):
    return {
        "games": ("MsPacman",),
        "seeds": 2,
        "steps": 60,
        "updates": (1, 3),
        "results": tmp_path / "encoders",
        "speed": tmp_path / "speed.json",
        "agents": tmp_path / "agents",
        "turns": 2,
    }


def test_agents_have_a_row_for_each_encoder(tmp_path):
    def write(name, game, method, count, scores, **arguments):
        seed = 101 if name == "d" else 100
        run = {"game": game, "seed": seed, "method": method, "num_keypoints": count, "schedule": {"steps": 20_000}}
        run["settings"] = {"policy_kwargs": {"features_extractor_kwargs": arguments}}
        run["training_games"] = {"steps": [4000, 9000, 12_000], "scores": scores}
        (tmp_path / f"{name}.json").write_text(json.dumps(run))
        return encoder_of(run)

    assert write("a", "MsPacman", "permakey-peaks-rainbow", 7, [0.0, 1.0, 3.0]) == "pairs"
    assert write("b", "Seaquest", "permakey-peaks-attention-rainbow", 25, [0.0, 2.0, 2.0]) == "attention, 25 peaks"
    assert write("c", "MsPacman", "permakey-peaks-gnn-rainbow", 7, [0.0, 2.0, 6.0], conv="GATv2Conv") == "GATv2"
    assert write("d", "MsPacman", "permakey-peaks-rainbow", 7, [0.0, 6.0, 2.0]) == "pairs"
    assert agents_table(tmp_path) == [
        "| encoder | MsPacman, seed 100 | MsPacman, seed 101 | MsPacman, all seeds | Seaquest, seed 100 "
        "| Seaquest, all seeds |",
        "|---|---|---|---|---|---|",
        "| GATv2 | 4 (2), n=2 | - | 4 (2), n=2 | - | - |",
        "| attention, 25 peaks | - | - | - | 2 (0), n=2 | 2 (0), n=2 |",
        # 1, 3, 6 and 2: a mean of 3, and a standard error of the root of 14 / 3 / 4.
        "| pairs | 2 (1), n=2 | 4 (2), n=2 | 3 (1), n=4 | - | - |",
    ]


def test_discounted_sums_by_hand():
    values, ends = np.array([1.0, 2.0, 4.0, 8.0]), np.array([False, True, False, False])
    # 1 + 2 / 2, 2 with its episode's end, 4 + 8 / 2, 8.
    assert discounted(values, ends, 0.5).tolist() == [2, 2, 8, 8]


def test_explained_variance_by_hand():
    wanted = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    # Variances 1 and 4; mean squared errors 0.25 and 8.
    assert explained(torch.tensor([[1.5, 0.0], [3.5, 0.0]]), wanted) == pytest.approx([0.75, -1.0])


def test_later_episodes_are_judged(checkpoint):
    data = play(PermaKeyObservation(MovingSquare(7), checkpoint), 60, 0.9)
    # Episodes end after each 7th step; the first end in the last quarter is step 49's.
    assert len(data.learned_targets) == len(data.learned["keypoints"]) == 49
    assert len(data.judged_targets) == len(data.judged["keypoints"]) == 11
    assert data.learned_targets.mean(0)[1].abs() < 1e-6
    with pytest.raises(ValueError, match="no episode ended in the last quarter of 60 steps"):
        play(PermaKeyObservation(MovingSquare(100), checkpoint), 60, 0.9)


def test_encoders_are_judged_and_timed_once(checkpoint, monkeypatch, tmp_path, settings):
    monkeypatch.setattr(encoders, "make_atari_env", lambda game, seed: MovingSquare(5))
    monkeypatch.setattr(
        encoders,
        "PermaKeyObservation",
        lambda env, name, *, keep_image, readout: PermaKeyObservation(
            env, checkpoint, keep_image=keep_image, readout=readout
        ),
    )
    trained = []

    class Learner:
        def train(self, updates, batch_size):
            trained.append((updates, batch_size))

    monkeypatch.setattr(encoder_speed, "learner", lambda variant, count: Learner())
    out = tmp_path / "encoders.md"
    main(EncoderBenchmark(variants=("pool",), num_keypoints=3, table=out, **settings))
    found = json.loads((tmp_path / "encoders" / "mspacman-3.json").read_text())
    assert np.array(found["variants"]["pool"]).shape == (2, 2, 2)
    assert found["keypoints"] == 3
    assert trained == [(5, 32)] * 6
    timed = json.loads((tmp_path / "speed.json").read_text())["ms"]["pool"]
    assert {count: len(turns) for count, turns in timed.items()} == {"8": 2, "20": 2, "25": 2}
    titles = "| encoder | rewards, 1 | rewards, 3 | lost life, 1 | lost life, 3 | ms, K = 8 | ms, K = 20 | ms, K = 25 |"
    assert titles in out.read_text()
    medians = [f"{statistics.median(timed[count]):.1f}" for count in ("8", "20", "25")]
    assert f"| {' | '.join(medians)} |\n" in out.read_text()
    monkeypatch.setattr(encoders, "play", None)
    monkeypatch.setattr(encoder_speed, "learner", None)
    main(EncoderBenchmark(variants=("pool",), num_keypoints=3, table=out, **settings))
    with pytest.raises(ValueError, match="made with other settings"):
        main(EncoderBenchmark(variants=("pool",), num_keypoints=3, table=out, **{**settings, "seeds": 3}))


@pytest.mark.parametrize("name", ["PNA", "pairs", "attention", "CNN, 32 filters"])
def test_every_kind_of_encoder_is_judged(name, checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(encoders, "BATCH_SIZE", 4)
    images = VARIANTS[name].reads_images
    data = play(PermaKeyObservation(MovingSquare(7), checkpoint, keep_image=images), 60, 0.9)
    shares = np.array(judge(VARIANTS[name], data, (1, 2), 0))
    assert shares.shape == (2, 2)
    assert np.isfinite(shares).all()


def test_updates_of_an_agent_are_timed(monkeypatch):
    monkeypatch.setattr(encoder_speed, "WARM_UP_STEPS", 6)
    agent = encoder_speed.learner(VARIANTS["attention"], 25)
    assert agent.observation_space["keypoints"].shape == (25, 2)
    assert agent.q_net.features_extractor.queries.out_features == 4
    before = agent._n_updates
    agent.train(encoder_speed.UPDATES, encoder_speed.BATCH_SIZE)
    assert agent._n_updates == before + encoder_speed.UPDATES


def test_bad_settings_are_named(settings):
    with pytest.raises(ValueError, match="unknown variant 'sum'"):
        EncoderBenchmark(variants=("sum",))
    with pytest.raises(ValueError, match="no checkpoint of Pong"):
        EncoderBenchmark(games=("Pong",))
    with pytest.raises(ValueError, match="updates must be rising"):
        EncoderBenchmark(updates=(5, 2))


def test_report_is_up_to_date():
    assert (RESULTS / "encoders.md").read_text() == report(RESULTS / "encoders", RESULTS / SPEED, RESULTS / AGENTS)


def test_the_guide_says_what_agents_made():
    runs = [json.loads(path.read_text()) for path in (RESULTS / AGENTS).glob("*.json")]
    text = " ".join((ROOT / "docs/encoders.md").read_text().split())
    of_pairs, of_graphs, of_attention = (
        [games_of(runs, name, game, (100, 101)).split(",")[0] for game in ("MsPacman", "Seaquest")]
        for name in ("pairs", "pool, layer norm, 4 frequencies", "attention")
    )
    assert len(runs) == 12
    assert (
        "In 20,000 steps of Rainbow (two seeds; mean of training's games, standard error) it made {} on MsPacman "
        "and {} on Seaquest, attention {} and {}, the graph network {} and {}."
    ).format(*of_pairs, *of_attention, *of_graphs) in text
