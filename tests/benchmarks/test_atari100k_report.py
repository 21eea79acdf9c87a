import warnings

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from benchmarks.atari100k.report import ReportConfig, write_report
from benchmarks.atari100k.statistics import (
    between_runs,
    human_normalised,
    interquartile_mean,
    iqm_intervals,
    median_of_seeds,
    performance_profiles,
)
from benchmarks.atari100k.tables import (
    PUBLISHED,
    Kind,
    all_runs_table,
    group_runs,
    hours,
    normalised_scores,
    short_table,
    table1,
    table2,
    table3,
    training_games,
)
from benchmarks.harness.results import CorruptResultWarning, read_result, read_results, write_result

MACHINE = {"cpu": "a CPU", "cores": 2, "gpu": None, "system": "Linux", "python": "3.11"}


def result_of(method="permakey-gnn", seed=0, **parts):
    validation = [
        {"steps": steps, "scores": [10.0 * seed, high], "episode_steps": [5, 5]}
        for steps, high in ((10_000, 24.0), (20_000, 20.0))
    ]
    return {
        "game": "MsPacman",
        "method": method,
        "preset": "paper",
        "noise": "clean",
        "num_keypoints": 7,
        "seed": seed,
        "settings": {},
        "schedule": {"steps": 20_000},
        "validation": validation,
        "test": {"seeds": [1, 2], "scores": [[100.0, 200.0], [300.0, 500.0]], "episode_steps": [[1, 1], [1, 1]]},
        "seconds": {"pretraining": None, "training": 3000.0, "validation": 600.0, "test": 60.0},
        "threads": 1,
        "device": "cpu",
        "machine": MACHINE,
        "commit": "abc1234def56",
        **parts,
    }


def test_later_training_games_by_hand():
    # The run has 20,000 steps; scores 2, 4 and 9 count: mean 5, std sqrt(13), standard error sqrt(13 / 3) = 2.08.
    games = {"steps": [500, 10_000, 10_001, 15_000, 19_999], "scores": [100.0, 100.0, 2.0, 4.0, 9.0]}
    assert training_games(result_of(training_games=games)) == "5 (2), n=3"
    # Of two runs 2, 4, 9 and 1: mean 4, std sqrt(38 / 3), standard error sqrt(38 / 12) = 1.78.
    other = {"steps": [9_000, 12_000], "scores": [100.0, 1.0]}
    assert training_games(result_of(training_games=games), result_of(training_games=other)) == "4 (2), n=4"
    assert training_games(result_of()) == "-"


def test_the_papers_statistic_by_hand():
    # Two policies, three environment seeds, two episodes; the policies' means: (10, 30), (50, 70), (0, 2).
    scores = np.array([[[0, 20], [40, 60], [0, 0]], [[30, 30], [70, 70], [1, 3]]], dtype=float)
    spread = median_of_seeds(scores)
    # Means over policies: 20, 60, 1; the middle one is the first seed's. Stds there: 10 and 0.
    assert spread.score == 20
    assert spread.std == pytest.approx(np.sqrt((10**2 + 0**2) / 2))


def test_of_an_even_number_of_seeds_the_lower_middle_one_counts():
    scores = np.array([[[4.0], [1.0], [3.0], [2.0]]])
    assert median_of_seeds(scores) == (2.0, 0.0)


def test_plain_statistics_by_hand():
    scores = np.array([[[0.0, 20.0]], [[30.0, 50.0]]])
    assert between_runs(scores) == (25.0, pytest.approx(np.sqrt(15**2 + 15**2)))
    assert between_runs(scores[:1]) == (10.0, None)
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, 3.0, -50.0, 4.0, 5.0, 90.0])) == (2 + 3 + 4 + 5) / 4
    assert interquartile_mean(np.array([7.0])) == 7
    assert human_normalised(307.3 + 66.443, 307.3, 6951.6) == pytest.approx(0.01)


def test_short_table_has_means_of_all_games_and_of_each_run():
    other = {"seeds": [1, 2], "scores": [[0.0, 0.0], [0.0, 300.0]], "episode_steps": [[1, 1], [1, 1]]}
    random = result_of("random", preset=None, num_keypoints=None, test=other)
    lines = short_table(group_runs([result_of(seed=0), result_of(seed=1, test=other), random]))
    [row] = [line for line in lines if line.startswith("| MsPacman |")]
    assert row.startswith("| MsPacman | **75** | **175** (275, 75) | - | - | 906 (")
    assert len(lines) == 2 + len(PUBLISHED["table1"])


def test_intervals_and_profiles():
    pytest.importorskip("rliable")
    scores = {"few": np.array([[0.2, 0.4]]), "more": np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [2.0, 2.0]])}
    intervals = iqm_intervals(scores)
    assert intervals["more"].iqm == pytest.approx(1.0)
    assert intervals["more"].low < 1 < intervals["more"].high
    # A single run of each game can be drawn in one way only.
    assert intervals["few"] == pytest.approx((0.3, 0.3, 0.3))
    thresholds = np.array([-1.0, 0.5, 1.5, 3.0])
    shares, bounds = performance_profiles(scores, thresholds)
    assert shares["more"].tolist() == [1.0, 0.75, 0.25, 0.0]
    # The same bounds whatever was drawn before, and the caller's own draws go on undisturbed.
    before = np.random.get_state()[1].tolist()
    assert iqm_intervals(scores) == intervals
    assert np.array_equal(performance_profiles(scores, thresholds)[1]["more"], bounds["more"])
    assert np.random.get_state()[1].tolist() == before


def test_tables_show_the_papers_numbers_beside_those_measured():
    groups = group_runs(
        [
            result_of(seed=1),
            result_of(seed=0),
            result_of("permakey-peaks-gnn", preset="strong"),
            result_of("permakey-cnn", noise="both"),
            result_of("transporter-cnn", num_keypoints=5),
        ]
    )
    first = "\n".join(table1(groups))
    assert "| MsPacman | paper | 364 (20) |" in first
    assert "906 (382) | - |" in first
    # Seed means 150 and 400 of both runs: the lower middle one, both stds 50.
    assert "| **150 (50)**, n=2 | **150 (50)**, n=1 |" in first
    noisy = [row for row in table2(groups) if "here" in row]
    assert noisy[1] == "|  | here | - | - | **150 (50)**, n=1 | - |"
    counts = [row for row in table3(groups) if "here" in row]
    assert counts[0] == "|  | here | **150 (50)**, n=1 | - | - | - |"
    assert counts[1] == "|  | here | - | - | - | **150 (50)**, n=2 |"


def test_the_table_of_all_runs():
    of_two_games = {"scores": [[100.0, 450.0], [100.0, 450.0]]}
    explored = {"test_with_exploration": {"epsilon": 0.001, "scores": [[100.0, 200.0], [300.0, 400.0]]}}
    sticky = {"test_with_sticky_actions": {"sticky": 0.25, "scores": [[80.0, 200.0], [0.0, 80.0]]}}
    rows = all_runs_table(group_runs([result_of(seed=0), result_of(seed=1, test=of_two_games, **explored, **sticky)]))
    share = (275 - 307.3) / (6951.6 - 307.3)
    # Seed means 212.5 and 337.5 of both runs; stds over the first seed's games 50 and 175.
    std = np.sqrt((50**2 + 175**2) / 2)
    tested = f"212 ({std:.0f}) | 275 (0) | 275, 275 | 4, 2 | 250 | 90 | 262 | {share:.3f}"
    # Validations: 12 and 10 of the first run, 17 and 15 of the second.
    assert rows[2] == f"| MsPacman | PKey + GNN (paper) | 2 | {tested} | - | 14 | 12 | 1.0 |"
    assert hours([result_of()]) == 1.0


def test_normalised_scores_take_as_many_runs_of_each_game():
    groups = group_runs([result_of(seed=0), result_of(seed=1), result_of(seed=0, game="Seaquest", num_keypoints=10)])
    games, scores = normalised_scores(groups)["PKey + GNN (paper)"]
    assert games == ("MsPacman", "Seaquest")
    assert scores == pytest.approx(np.array([[(275 - 307.3) / (6951.6 - 307.3), (275 - 68.4) / (42054.7 - 68.4)]]))


def test_runs_of_different_settings_are_not_averaged():
    with pytest.raises(ValueError, match=r"PKey \+ GNN \(paper\) on MsPacman had different settings"):
        group_runs([result_of(seed=0), result_of(seed=1, settings={"gamma": 0.9})])


def test_labels_say_what_is_unusual():
    assert Kind("MsPacman", "permakey-cnn", "paper", "both", 5).label == "PKey + CNN (paper), K=5, noisy"
    assert Kind("MsPacman", "random", None, "clean", None).label == "random policy"


def test_published_agents_have_scores_and_the_papers_games_their_ends():
    for game in PUBLISHED["table1"]:
        random, human = PUBLISHED["random_human"][game]
        assert random < human
        assert set(PUBLISHED["other_100k_agents"][game]) == set(PUBLISHED["agents"])


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_report_of_however_few_runs(tmp_path, count):
    results = tmp_path / "atari100k"
    for index in range(count):
        method = ("permakey-gnn", "random")[index % 2]
        presets = {} if index % 2 == 0 else {"preset": None, "num_keypoints": None, "validation": []}
        write_result(results / f"{index}.json", result_of(method, seed=index, **presets))
    # A run whose settings were still to be chosen: no test.
    if count == 4:
        untested = {"seeds": [], "scores": [], "episode_steps": []}
        write_result(results / "untested.json", result_of("grid-gnn", test=untested))
        tried = {"gamma": 0.9, "policy_kwargs": {"dueling": True}}
        write_result(tmp_path / "atari100k_trials" / "dueling.json", result_of(seed=100, settings=tried, test=untested))
    config = ReportConfig(results, tmp_path / "atari100k.md", tmp_path / "docs")
    write_report(config)
    text = config.table.read_text()
    assert "| Seaquest | paper | 206 (17) |" in text
    assert ("docs/atari100k_curves.png" in text) == (count > 0)
    assert (tmp_path / "docs" / "atari100k_time.png").exists() == (count > 0)
    assert ("- a CPU, threads: 1, runs: " in text) == (count > 0)
    assert (" and test 1.02 hours.\n" in text) == (count == 1)
    assert (" 1.02 to 1.02 hours each, " in text) == (count == 4)
    # Validations 12 and 10 of seed 0, 512 and 510 of seed 100: the second is the later half.
    assert ("| 100 | 20000 | `gamma=0.9 dueling=True` | 510 | 0 | 512 | - | 1.0 | abc1234 |" in text) == (count == 4)
    assert ("None yet." in text) == (count < 4)
    if count == 4:
        assert "| fixed grid + GNN (paper) | 1 | - | - | - | - | - | - | - | - | - | 12 | 10 | 1.0 |" in text


def test_a_readmes_table_is_renewed_between_its_marks(tmp_path):
    results, readme = tmp_path / "atari100k", tmp_path / "README.md"
    write_result(results / "0.json", result_of())
    config = ReportConfig(results, tmp_path / "atari100k.md", tmp_path / "docs", readme)
    readme.write_text("# Title\n\n<!-- atari100k -->\nold\n<!-- /atari100k -->\n\nThe rest.\n")
    write_report(config)
    text = readme.read_text()
    assert text.startswith("# Title\n\n<!-- atari100k -->\n| game |")
    assert text.endswith("test 1.02 hours.\n<!-- /atari100k -->\n\nThe rest.\n")
    write_report(config)
    assert readme.read_text() == text


@pytest.mark.parametrize("text", ["", "<!-- atari100k -->\nold\n", "<!-- /atari100k -->\n<!-- atari100k -->\n"])
def test_a_readme_without_marks_is_named_and_nothing_is_written(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    config = ReportConfig(tmp_path / "atari100k", tmp_path / "atari100k.md", tmp_path / "docs", readme)
    with pytest.raises(ValueError, match="README.md has no lines <!-- atari100k --> and, below it"):
        write_report(config)
    assert sorted(tmp_path.iterdir()) == [readme]
    assert readme.read_text() == text


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"300.0", b"900.0"),
        lambda content: b"[]",
        lambda content: b"\xff\xfe",
    ],
)
def test_a_damaged_result_is_named_set_aside_and_not_averaged_in(tmp_path, damage):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    write_result(good, result_of(seed=0))
    write_result(bad, result_of(seed=1))
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.warns(CorruptResultWarning, match=r"bad\.json is damaged; it is set aside as bad\.json\.corrupt"):
        results = read_results(tmp_path)
    assert [result["seed"] for result in results] == [0]
    assert not bad.exists()
    assert (tmp_path / "bad.json.corrupt").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [result["seed"] for result in read_results(tmp_path)] == [0]
        assert read_result(bad) is None
