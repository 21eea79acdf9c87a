"""The figures in docs/results.md and in the guides are those of the results files."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.atari100k.tables import Kind, group_runs, training_games
from benchmarks.atari100k.tables import scores_of as scores_of_tests
from benchmarks.harness.markdown_blocks import renewed
from benchmarks.harness.results import read_results as read_atari_results
from benchmarks.keypoints.report import guide_tables, page_tables, read_results, read_stability, report
from benchmarks.memory.report import read_results as read_memory_results
from benchmarks.memory.report import short_table as short_memory_table
from benchmarks.memory.report import table as memory_table
from benchmarks.release.report import demo_table
from benchmarks.speed.agents import table as speed_table
from benchmarks.speed.cnn import report as cnn_report
from benchmarks.speed.report import report as throughput_report
from benchmarks.speed.report import short_tables
from benchmarks.speed.updates import report as updates_report

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "keypoints"
PAGE = (ROOT / "docs" / "results.md").read_text()


def result(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def test_demo_scores():
    assert renewed(ROOT / "docs" / "results.md", demo="\n".join(demo_table(result("demo")))) == PAGE


def test_pretraining_step():
    step = result("pretraining_step")
    for seconds in list(step["step_s"].values())[:3]:
        assert f"{seconds:.2f}" in PAGE
    assert f"{step['matrix_product_gflops']:.0f} GFLOP/s" in PAGE


def test_scores_on_noisy_frames():
    assert renewed(ROOT / "docs" / "results.md", **page_tables(read_results(RESULTS))) == PAGE


def test_keypoints_on_bars():
    results = [json.loads(path.read_text()) for path in RESULTS.glob("*-permakey-both-*.json")]
    assert len({permakey["game"] for permakey in results}) == 7
    for permakey in results:
        contrast = permakey["scores"]["contrast"]
        assert contrast["keypoints"]["distractor_rate"]["value"] < contrast["random"]["distractor_rate"]["value"] + 0.03
        transporter = result(f"keypoints/{permakey['game'].lower()}-transporter-both-0")["scores"]["pointnet"]
        for scores in permakey["scores"].values():
            assert scores["keypoints"]["f1"]["value"] > transporter["keypoints"]["f1"]["value"]


def test_kinds_of_objects_in_the_guide():
    measured = (ROOT / "benchmarks" / "results" / "keypoints.md").read_text().splitlines()
    guide = (ROOT / "docs" / "keypoints.md").read_text()
    rows = [line for line in guide.splitlines() if line.startswith("| ")]
    assert len(rows) > 5
    assert not set(rows) - set(measured)
    assert renewed(ROOT / "docs" / "keypoints.md", **guide_tables(read_results(RESULTS))) == guide
    results = [json.loads(path.read_text()) for path in RESULTS.glob("*-permakey-clean-0.json")]
    assert len(results) == 7

    def smaller_motion_errors(readout: str, than: str) -> tuple[int, int]:
        """For how many kinds that move a readout's motion error is smaller than another's, and of how many."""
        errors = [
            [run["categories"][name][kind]["motion_error_px"]["value"] for name in (readout, than)]
            for run in results
            for kind, scores in run["categories"][than].items()
            if scores["tracking"]["value"] is not None
        ]
        both = [pair for pair in errors if None not in pair]
        return sum(new < old for new, old in both), len(both)

    text = " ".join(guide.split())
    better, count = smaller_motion_errors("contrast", "peaks")
    assert f"of {count} kinds of objects that move, in all games, {better} have" in text
    better, count = smaller_motion_errors("steady", "contrast")
    assert f"of the {count} kinds, {better} have a smaller motion error than with peaks of the contrast" in text
    differences = [
        abs(run["scores"]["steady"]["keypoints"]["f1"]["value"] - run["scores"]["contrast"]["keypoints"]["f1"]["value"])
        for run in results
    ]
    assert f"(F1 differs by at most {max(differences):.3f} on any game)" in text
    tracking = {
        name: read_results(RESULTS)["Frostbite", "clean"]["permakey"][0]["scores"][name]["keypoints"]["tracking"][
            "value"
        ]
        for name in ("pointnet", "peaks")
    }
    assert (
        f"(tracking {tracking['pointnet']:.2f} on Frostbite, peaks {tracking['peaks']:.2f})".replace("0.", ".") in guide
    )


def test_report_is_up_to_date():
    assert (ROOT / "benchmarks" / "results" / "keypoints.md").read_text() == report(
        read_results(RESULTS), read_stability(RESULTS)
    )


def test_speed_of_the_agents():
    guide = (ROOT / "docs" / "recurrent_agents.md").read_text()
    for line in speed_table(result("agents_speed")["agents"]):
        assert line in guide


def atari_results() -> list[dict]:
    return read_atari_results(ROOT / "benchmarks" / "results" / "atari100k")


def mean_and_each(scores: np.ndarray) -> str:
    """Mean of all runs' test games and in brackets of each run's."""
    return f"{scores.mean():.0f} ({', '.join(f'{run.mean():.0f}' for run in scores)})"


def late(runs: list[dict]) -> list[str]:
    """Mean of the later games of training, and its standard error."""
    return re.findall(r"\d+", training_games(*runs))[:2]


def entered_igloo(scores: Iterable[float]) -> int:
    """Games of Frostbite in which the player entered the finished igloo."""
    assert not [score for score in scores if 300 < score < 680]
    return sum(score >= 680 for score in scores)


def test_atari_scores_of_rainbow():
    groups = group_runs(atari_results())
    text = " ".join(PAGE.split())
    games = (("MsPacman", 7), ("BattleZone", 8), ("Seaquest", 10))
    rainbow, strong = (
        [groups[Kind(game, method, preset, "clean", count)] for game, count in games]
        for method, preset in (("permakey-student-rainbow", "rainbow"), ("permakey-peaks-gnn", "strong"))
    )
    assert [len(runs) for runs in (*rainbow, *strong)] == [1, 1, 1, 3, 3, 3]
    assert (
        "they make {} (standard error {}) on MsPacman, the strong agent's three runs {} ({}), {} ({}) on BattleZone, "
        "the strong agent's {} ({}), and {} ({}) on Seaquest, the strong agent's {} ({}); the strong agent plays"
    ).format(*(figure for runs in zip(rainbow, strong, strict=True) for of in runs for figure in late(of))) in text
    tests, sticky = (
        [f"{np.mean(runs[0][test]['scores']):.0f}" for runs in rainbow] for test in ("test", "test_with_sticky_actions")
    )
    different = [len(np.unique(scores_of_tests(runs))) for runs in rainbow]
    assert "In the test they score {}, {} and {}, by".format(*tests) in text
    assert "that have {}, {} and {} different scores among 100 games".format(*different) in text
    assert "with sticky actions {}, {} and {}.".format(*sticky) in text
    assert float(tests[2]) > 2 * np.mean(scores_of_tests(strong[2]))  # "with twice its score"
    assert f"in the test than the strong agent's {np.mean(scores_of_tests(strong[1])):.0f}," in text
    games = rainbow[1][0]["training_games"]
    last = [score for steps, score in zip(games["steps"], games["scores"], strict=True) if steps > 60_000]
    error = np.std(last, ddof=1) / np.sqrt(len(last))
    assert f"the run on the student makes {np.mean(last):.0f} ({error:.0f}) after its last reset" in text
    teacher = groups[Kind("MsPacman", "permakey-peaks-rainbow", "rainbow", "clean", 7)]
    assert "it makes {} ({}) and".format(*late(teacher)) in text

    trial = json.loads((ROOT / "benchmarks/results/atari100k_trials/frostbite-rainbow-40k.json").read_text())
    games = trial["training_games"]
    later = [score for steps, score in zip(games["steps"], games["scores"], strict=True) if steps > 20_000]
    mean, error = late([trial])
    assert f"makes {mean} ({error}) between 20,000 and 40,000, at best {max(later):.0f}, and enters" in text
    assert f"enters the igloo in {entered_igloo(later)} of these {len(later)} games;" in text
    mean, error = late(groups[Kind("Frostbite", "permakey-peaks-gnn", "strong", "clean", 20)])
    assert f"the strong agent makes {mean} ({error}) in its later games" in text


def test_atari_scores_of_rainbow_on_pixels():
    groups = group_runs(atari_results())
    text = " ".join(PAGE.split())
    bbf, der = (
        groups[Kind("MsPacman", method, preset, "clean", None)]
        for method, preset in (("rainbow-pixels", "rainbow"), ("der-pixels", None))
    )
    assert [len(bbf), len(der)] == [1, 1]
    mean, error = late(bbf)
    assert f"makes {mean} (standard error {error}) in the games of training's second half" in text
    assert f"second half and {scores_of_tests(bbf).mean():.0f} in the test" in text
    assert "it makes {} ({}) and {} (one run)".format(*late(der), f"{scores_of_tests(der).mean():.0f}") in text
    guide = " ".join((ROOT / "docs" / "rainbow.md").read_text().split())
    assert "they gave {} (standard error {}) in games of the second half".format(*late(der)) in guide
    assert f"gave {mean} ({error}) (one seed each" in guide


def test_atari_scores_on_other_points():
    groups = group_runs(atari_results())
    grid, true, transporter, permakey = (
        groups[Kind("MsPacman", f"{points}-gnn", "paper", "clean", 7)]
        for points in ("grid", "true-positions", "transporter", "permakey")
    )
    of_grid, of_true, each = map(scores_of_tests, (grid, true, transporter))

    text = " ".join(PAGE.split())
    assert f"scores {mean_and_each(of_grid)} on a fixed grid of points, {mean_and_each(of_true)} on OCAtari's" in text
    assert f"and {mean_and_each(each)} on the Transporter's" in text
    assert scores_of_tests(permakey).mean() >= max(of_true.mean(), each.mean())
    assert {len(set(run.flat)) for run in each} == {3, 4}
    assert f"from {each.min():.0f} to {each.max():.0f}." in text

    mean, error = late(grid)
    assert f"the agent makes {mean} (standard error {error}) on the grid," in text
    mean, error = late(true)
    assert f"on the grid, {mean} ({error}) on true positions," in text
    mean, error = late(transporter)
    assert f"on true positions, {mean} ({error}) on the Transporter's keypoints and" in text
    mean, error = late(permakey)
    assert f"keypoints and {mean} ({error}, one run) on PermaKey's." in text
    assert sum(training_games(run) != "-" for run in permakey) == 1


def test_where_the_loss_is():
    text = " ".join(PAGE.split())
    groups = group_runs(atari_results())

    def runs(game: str, points: str, preset: str = "paper") -> list[dict]:
        count = {"BattleZone": 8, "Seaquest": 10, "Frostbite": 20}[game]
        return groups[Kind(game, f"{points}-gnn", preset, "clean", count)]

    transporter, permakey = (scores_of_tests(runs("BattleZone", points)) for points in ("transporter", "permakey"))
    (true,) = scores_of_tests(runs("BattleZone", "true-positions"))
    assert f"scores {mean_and_each(transporter)} on the Transporter's keypoints and {true.mean():.0f} (one run)" in text
    assert max(transporter.mean(), true.mean()) < permakey.mean()

    (true,) = scores_of_tests(runs("Seaquest", "true-positions", "strong"))
    assert f"the strong agent scores {true.mean():.0f} on true positions (one run)" in text
    assert true.mean() <= scores_of_tests(runs("Seaquest", "permakey-peaks", "strong")).mean()
    transporter, permakey = (runs("Seaquest", points) for points in ("transporter", "permakey"))
    scores = scores_of_tests(transporter)
    assert f"the paper's agent {mean_and_each(scores)} on the Transporter's keypoints" in text
    assert scores.mean() > scores_of_tests(permakey).mean()
    best = max(transporter[2]["validation"], key=lambda validation: np.mean(validation["scores"]))
    assert scores.max() == scores[2].max()
    assert f"The {scores[2].mean():.0f} are of a policy of {best['steps']:,} steps," in text
    assert len(set(scores[2].flat)) == 4
    (mean, error), (mean_permakey, error_permakey) = late(transporter), late(permakey)
    assert f"second half {mean} (standard error {error}) and {mean_permakey} ({error_permakey})." in text

    (transporter,), permakey = (runs("Frostbite", points) for points in ("transporter", "permakey"))
    scores, in_training = scores_of_tests([transporter]), transporter["training_games"]["scores"]
    assert f"keypoints give it {scores.mean():.0f} (one run), for in {entered_igloo(scores.ravel())} of" in text
    assert entered_igloo(in_training) == 0
    assert f"as in none of its {len(in_training)} games of training," in text
    (mean, error), (mean_permakey, error_permakey) = late([transporter]), late(permakey)
    assert f"makes {mean} (standard error {error}), and {mean_permakey} ({error_permakey}) on PermaKey's." in text


def test_frostbites_igloo():
    text = " ".join(PAGE.split())
    groups = group_runs(atari_results())
    peaks, (true,) = (
        groups[Kind("Frostbite", f"{points}-gnn", "strong", "clean", 20)]
        for points in ("permakey-peaks", "true-positions")
    )

    def in_training(run: dict) -> int:
        return entered_igloo(run["training_games"]["scores"])

    def in_test(run: dict) -> int:
        return entered_igloo(np.ravel(run["test"]["scores"]))

    assert "at most 300 points without, at least 680 with it" in text
    first, second, third = map(in_training, peaks)
    games = sum(len(run["training_games"]["scores"]) for run in peaks)
    assert f"entered it in {first}, {second} and {third} of their {games} games of training" in text
    assert "score {:.0f}, {:.0f} and {:.0f}: the second".format(*scores_of_tests(peaks).mean(axis=(1, 2))) in text
    assert f"the second enters it in {in_test(peaks[1])} of 100 test games" in text
    assert in_test(peaks[0]) == in_test(peaks[2]) == 0
    games = len(true["training_games"]["scores"])
    assert f"entered it in {in_training(true)} of {games}, and in {in_test(true)} of its test's" in text
    assert f"which makes {scores_of_tests([true]).mean():.0f}." in text
    measured = result("keypoints/frostbite-permakey-clean-0")["categories"]["peaks"]
    assert f"hit more than {100 * measured['FloatingBlock']['recall']['value']:.0f} % of the floes" in text


def test_throughput():
    throughput = result("throughput")
    assert renewed(ROOT / "docs" / "results.md", throughput="\n".join(short_tables(throughput))) == PAGE
    assert throughput_report(throughput) == (ROOT / "benchmarks" / "results" / "throughput.md").read_text()
    run = result("atari100k/mspacman-permakey-gnn-paper-k7-clean-1")
    assert run["threads"] == 2
    assert f"100,000 steps of the protocol took {run['seconds']['training'] / 60:.1f} minutes" in PAGE


def test_updates():
    results = ROOT / "benchmarks" / "results"
    assert updates_report(results / "updates") == (results / "updates.md").read_text()


def test_speed_of_the_cnn():
    assert cnn_report(result("cnn_speed")) == (ROOT / "benchmarks" / "results" / "cnn_speed.md").read_text()


def test_memory_of_the_agents():
    guide = (ROOT / "docs" / "recurrent_agents.md").read_text()
    results = read_memory_results(ROOT / "benchmarks" / "results" / "memory")
    assert "\n".join(memory_table(results)) in guide
    assert "\n".join(memory_table(results, need_memory=False)) in (ROOT / "docs" / "rainbow.md").read_text()
    assert renewed(ROOT / "docs" / "results.md", memory="\n".join(short_memory_table(results))) == PAGE
