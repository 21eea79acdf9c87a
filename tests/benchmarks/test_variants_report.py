import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from benchmarks.variants.report import report

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def results_of(folder):
    return [json.loads(path.read_text()) for path in sorted((RESULTS / folder).glob("*.json"))]


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


def test_what_could_not_be_counted_is_left_out(tmp_path):
    figures = {"f1": {"value": 0.25}, "tracking": {"value": None}}  # no moving object had a keypoint
    write(tmp_path / "softmax_transporter", "BattleZone", {"plane softmax": figures})
    assert "| plane softmax | 0.25 | 0.25 | - |" in report(tmp_path)


def test_agents_who_played_frames_stand_with_their_scores(tmp_path):
    write(tmp_path / "feature_variants_agent", "MsPacman", {"as benchmarked": {"f1": [0.5], "tracking": [0.25]}})
    scores = {"agent": {"mean": 768.4}, "random": {"mean": 264.0}, "command": "evaluate", "commit": "abc"}
    (tmp_path / "players").mkdir()
    (tmp_path / "players" / "mspacman.json").write_text(json.dumps({"game": "ALE/MsPacman-v5", **scores}))
    line = "- MsPacman's agent: mean score 768, the random policy's 264; `evaluate`, commit abc"
    assert line in report(tmp_path).splitlines()


def test_report_is_up_to_date():
    assert (RESULTS / "variants.md").read_text() == report(RESULTS)
    peaks = [result["variants"] for result in results_of("peak_variants")]
    used = "first layer, 5 px"
    for name in peaks[0]:
        assert name == used or any(game[name]["f1"][0] < game[used]["f1"][0] for game in peaks)


def test_training_the_encoder_brings_little():
    games = {result["game"]: result["variants"] for result in results_of("feature_variants")}
    assert len(games) >= 3
    for variants in games.values():
        f1 = {name: scores["f1"]["value"] for name, scores in variants.items()}
        for name in ("random encoder", "KL weight 0", "KL weight 4"):
            assert abs(f1[name] - f1["as benchmarked"]) <= 0.03
        assert f1["layers (0)"] == f1["layers (0, 1, 2, 3)"] == f1["as benchmarked"]
    for game in ("MsPacman", "Seaquest"):
        recall = {name: scores["recall"]["value"] for name, scores in games[game].items()}
        assert recall["layers (2, 3)"] < recall["as benchmarked"] - 0.1


def test_an_agents_frames_help_on_spaceinvaders_alone():
    for folder in ("feature_variants", "feature_variants_agent"):
        results = results_of(folder)
        assert {result["game"] for result in results} == {"MsPacman", "Seaquest", "SpaceInvaders"}
        for result in results:
            f1 = {name: scores["f1"]["value"] for name, scores in result["variants"].items()}
            gain = f1["half of the frames an agent's"] - f1["as benchmarked"]
            assert gain > 0.03 if result["game"] == "SpaceInvaders" else abs(gain) <= 0.02


def test_the_root_of_the_maps_helps_on_five_games_and_one_softmax_beside_it_on_enduro_alone():
    f1 = defaultdict(lambda: defaultdict(list))
    tracking = defaultdict(list)
    for result in results_of("pointnet_variants_long"):
        for name, scores in result["variants"].items():
            f1[result["game"]][name].append(scores["f1"][0])
            tracking[name].append(scores["tracking"][0])
    root, both = "power 0.5", "plane softmax, power 0.5"
    assert len(f1) == 7
    seeds = f1["MsPacman"]["paper"]
    means = {game: {name: fmean(each) for name, each in variants.items()} for game, variants in f1.items()}
    over_paper = {game: variants[root] - variants["paper"] for game, variants in means.items()}
    assert max(means["MsPacman"].values()) - min(means["MsPacman"].values()) < max(seeds) - min(seeds)
    assert -0.035 < over_paper.pop("MsPacman") < -0.02
    assert -0.025 < over_paper.pop("BattleZone") < 0
    assert min(over_paper.values()) > 0
    by_plane = {game: variants[both] - variants[root] for game, variants in means.items()}
    assert 0.025 < by_plane.pop("Enduro") < 0.035
    for game in ("BattleZone", "Frostbite", "Seaquest"):
        assert -0.075 < by_plane.pop(game) < -0.045
    assert max(map(abs, by_plane.values())) < 0.03
    assert fmean(variants[root] for variants in means.values()) > fmean(variants[both] for variants in means.values())
    assert fmean(tracking[both]) < fmean(tracking[root])


def softmax_f1(method):
    games = {result["game"]: result["variants"] for result in results_of(f"softmax_{method}")}
    for game, variants in games.items():
        compared = json.loads((RESULTS / "keypoints" / f"{game.lower()}-{method}-clean-0.json").read_text())
        scores = compared["scores"]["pointnet"]["keypoints"]
        assert abs(scores["f1"]["value"] - variants["plane softmax"]["f1"]["value"]) < 0.01
    axes, plane = "per-axis softmax (paper)", "plane softmax"
    return {game: (each[axes]["f1"]["value"], each[plane]["f1"]["value"]) for game, each in games.items()}


def test_trained_on_more_frames_the_pointnet_is_better_with_the_softmax_over_the_whole_map():
    f1 = softmax_f1("permakey")
    assert set(f1) == {"Seaquest", "Frostbite"}
    for axes, plane in f1.values():
        assert 0.065 < plane - axes < 0.085


def test_the_papers_softmax_helps_the_transporter_on_two_games_and_the_other_on_two():
    f1 = softmax_f1("transporter")
    assert set(f1) == {"MsPacman", "Frostbite", "MontezumaRevenge", "BattleZone"}
    gains = {game: plane - axes for game, (axes, plane) in f1.items()}
    for game, gain in {"MsPacman": 0.15, "Frostbite": 0.19, "MontezumaRevenge": -0.03, "BattleZone": -0.13}.items():
        assert abs(gains[game] - gain) < 0.006
    for game, both in f1.items():
        permakey = json.loads((RESULTS / "keypoints" / f"{game.lower()}-permakey-clean-0.json").read_text())["scores"]
        assert min(permakey[readout]["keypoints"]["f1"]["value"] for readout in ("pointnet", "peaks")) > max(both)
    axes, plane = f1["BattleZone"]
    random = json.loads((RESULTS / "keypoints" / "battlezone-transporter-clean-0.json").read_text())["scores"]
    assert plane < axes < random["pointnet"]["random"]["f1"]["value"]


def test_the_page_of_results_tells_what_the_papers_softmax_makes():
    text = " ".join((RESULTS.parents[1] / "docs" / "results.md").read_text().split())
    permakey, transporter = softmax_f1("permakey"), softmax_f1("transporter")
    for game, (axes, _) in permakey.items():
        assert f"{axes:.2f} on {game}"[1:] in text
    seaquest, frostbite = (f"{permakey[game][1]:.2f}"[1:] for game in ("Seaquest", "Frostbite"))
    assert f"where the table has {seaquest} and {frostbite};" in text
    for game in ("MsPacman", "BattleZone"):
        axes, plane = (f"{f1:.2f}"[1:] for f1 in transporter[game])
        assert f"{axes} instead of {plane} on {game}" in text


def test_no_change_of_the_pointnet_helps_on_every_game():
    games = [result["variants"] for result in results_of("pointnet_variants") if not result["config"]["distractor"]]
    assert len(games) == 3
    for name in games[0]:
        assert any(variants[name]["f1"][0] <= variants["paper"]["f1"][0] for variants in games)
