import json
from pathlib import Path

from benchmarks.variants_report import report

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def write(folder, game, variants, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "game": game,
        "config": settings,
        "command": f"variants.py --game {game}",
        "commit": "abc",
        "variants": variants,
    }
    name = "-".join([game.lower(), *map(str, settings), *map(str, settings.values())])
    (folder / f"{name}.json").write_text(json.dumps(result))


def test_games_stand_side_by_side(tmp_path):
    named = {"f1": {"value": 0.5, "low": 0.4}, "tracking": {"value": 0.25}}
    listed = {"f1": [0.75, 0.7, 0.8], "tracking": [0.75, 0.0, 1.0]}
    write(tmp_path / "feature_variants", "MsPacman", {"as benchmarked": named, "random encoder": named})
    write(tmp_path / "feature_variants", "Seaquest", {"as benchmarked": listed})
    text = report(tmp_path)
    assert "| variant | MsPacman | Seaquest | mean | mean tracking |" in text
    assert "| as benchmarked | 0.50 | 0.75 | 0.62 | 0.50 |" in text
    assert "| random encoder | 0.50 | - | - | - |" in text
    assert "- Seaquest: `variants.py --game Seaquest`, commit abc" in text
    assert "## PointNet" not in text


def test_noisy_games_say_how_many_keypoints_are_on_a_bar(tmp_path):
    clean = {"f1": [0.5], "tracking": [0.25], "distractor_rate": [float("nan")]}
    noisy = {"f1": [0.75], "tracking": [0.75], "distractor_rate": [0.125]}
    write(tmp_path / "peak_variants", "BattleZone", {"first layer": clean})
    write(tmp_path / "peak_variants", "MsPacman", {"first layer": noisy}, distractor="both")
    text = report(tmp_path)
    assert "| variant | BattleZone | MsPacman, noisy | mean | mean tracking | on a bar |" in text
    assert "| first layer | 0.50 | 0.75 | 0.62 | 0.50 | 0.12 |" in text
    assert "- MsPacman, noisy: `variants.py" in text


def test_scores_on_an_agents_play_stand_apart_from_those_on_random_play(tmp_path):
    figures = {"f1": [0.5], "tracking": [0.25]}
    write(tmp_path / "feature_variants", "MsPacman", {"as benchmarked": figures}, policy=["agent.zip"])
    write(tmp_path / "feature_variants", "Seaquest", {"as benchmarked": figures}, policy=["random"])
    text = report(tmp_path)
    assert "| variant | MsPacman, an agent's play | Seaquest | mean | mean tracking |" in text


def test_seeds_of_a_game_share_its_column(tmp_path):
    folder = tmp_path / "pointnet_variants"
    for seed, f1 in ((1, 0.25), (0, 0.75), (2, 0.5)):
        write(folder, "MsPacman", {"paper": {"f1": [f1], "tracking": [f1 / 2]}}, seed=seed)
    write(folder, "Seaquest", {"paper": {"f1": [1.0], "tracking": [0.75]}}, seed=0)
    text = report(tmp_path)
    assert "| variant | MsPacman | Seaquest | mean | mean tracking |" in text
    assert "| paper | 0.50 (0.75, 0.25, 0.50) | 1.00 | 0.75 | 0.50 |" in text


def test_report_is_up_to_date():
    assert (RESULTS / "variants.md").read_text() == report(RESULTS)
    peaks = [json.loads(path.read_text())["variants"] for path in (RESULTS / "peak_variants").glob("*.json")]
    used = "first layer, 5 px"
    for name in peaks[0]:
        assert name == used or any(game[name]["f1"][0] < game[used]["f1"][0] for game in peaks)


def test_training_the_encoder_brings_little():
    results = [json.loads(path.read_text()) for path in (RESULTS / "feature_variants").glob("*.json")]
    games = {result["game"]: result["variants"] for result in results if result["config"]["policy"] == ["random"]}
    assert len(games) >= 2
    for variants in games.values():
        f1 = {name: scores["f1"]["value"] for name, scores in variants.items()}
        for name in ("random encoder", "KL weight 0", "KL weight 4"):
            assert abs(f1[name] - f1["as benchmarked"]) <= 0.03
        assert f1["layers (0)"] == f1["layers (0, 1, 2, 3)"] == f1["as benchmarked"]
    recall = {name: scores["recall"]["value"] for name, scores in games["Seaquest"].items()}
    assert recall["layers (2, 3)"] < recall["as benchmarked"] - 0.1
