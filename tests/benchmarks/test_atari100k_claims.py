import pytest

pytest.importorskip("matplotlib")
from benchmarks.atari100k.claims import CLAIMS, ENCODERS, Side, claims_section, graph_against_cnn, row_of, verdict
from benchmarks.atari100k.statistics import difference_of_means
from benchmarks.atari100k.tables import group_runs


def run_of(method, score, seed, **parts):
    """A run whose two test games have this mean."""
    kind = {"game": "MsPacman", "preset": "paper", "noise": "clean", "num_keypoints": 7, **parts}
    test = {"scores": [[score - 10.0, score + 10.0]]}
    return {"method": method, "seed": seed, "settings": {}, "schedule": {}, "test": test, **kind}


def rows_of(scores):
    """Rows of all pairs of both encoders on MsPacman, of runs with these scores for each method."""
    runs = [run_of(method, score, seed) for method, each in scores.items() for seed, score in enumerate(each)]
    groups = group_runs(runs)
    return [
        row_of(groups, Side(f"permakey_{encoder}", "MsPacman"), Side(f"transporter_{encoder}", "MsPacman"))
        for encoder in ENCODERS
    ]


def test_welchs_interval_by_hand():
    # Means 2 and 0, of which only the first varies: one degree of freedom, standard error sqrt(2 / 2) = 1, and the
    # distribution's 97.5 % point is tan(.475 pi) = 12.706.
    assert difference_of_means([1, 3], [0, 0, 0]) == pytest.approx((2 - 12.706, 2 + 12.706), abs=0.001)
    # Both vary by 2 / 3 among four runs: six degrees of freedom, whose 97.5 % point is 2.447.
    assert difference_of_means([4, 5, 5, 6], [0, 1, 1, 2])[0] == pytest.approx(
        4 - 2.447 * (2 / 3 / 4 * 2) ** 0.5, abs=0.001
    )
    assert difference_of_means([3, 3], [1, 1]) == (2, 2)


def test_a_pair_is_decided_by_its_interval():
    cnn, gnn = rows_of(
        {
            "permakey-gnn": [1000, 1010, 1020],
            "transporter-gnn": [500, 510, 520],
            "permakey-cnn": [500, 900],
            "transporter-cnn": [600, 700],
        }
    )
    assert (gnn.expected, gnn.found, cnn.expected, cnn.found) == (1, 1, 1, 0)
    assert gnn.cells[3:7] == ("906 / 838", "1010 / 510", "3 / 3", "+500")
    assert cnn.cells[4:7] == ("700 / 650", "2 / 2", "+50")
    assert verdict([cnn, gnn]) == (
        "Of the paper's 2 pairs 2 are measured here: 1 as there, 0 the other way round, 1 undecided."
    )


def test_one_run_decides_nothing_and_none_is_not_measured():
    cnn, gnn = rows_of({"permakey-gnn": [300], "transporter-gnn": [500, 510]})
    assert (gnn.found, gnn.cells[6:]) == (0, ("-205", "-"))
    assert (cnn.found, cnn.cells[4:]) == (None, ("- / -", "0 / 0", "-", "-"))
    turned = rows_of({"permakey-gnn": [300, 301], "transporter-gnn": [500, 510]})
    assert turned[1].found == -1
    assert verdict(turned).endswith("0 as there, 1 the other way round, 0 undecided.")


def test_expectations_are_the_papers_signs():
    expected = {(first.game, first.column): row_of({}, first, second).expected for first, second in graph_against_cnn()}
    assert expected["BattleZone", "permakey_gnn"] == expected["Frostbite", "permakey_gnn"] == 1
    assert expected["MsPacman", "permakey_gnn"] == expected["Seaquest", "permakey_gnn"] == -1
    assert expected["BattleZone", "transporter_gnn"] == 0  # which the paper calls no better than random play


def test_pairs_of_noise_and_number_are_those_of_their_tables():
    noisy = Side("permakey_cnn", "Seaquest", "both")
    assert (noisy.published, noisy.label, noisy.kind.noise) == (562.0, "PKey + CNN, noisy", "both")
    five = Side("transporter_cnn", "MsPacman", "clean", 5)
    assert (five.published, five.label, five.kind.num_keypoints) == (923.0, "Transporter + CNN, K=5", 5)
    section = claims_section({})
    assert sum(line.startswith("**") for line in section) == len(CLAIMS)
    assert all("0 are measured here" in line for line in section if line.startswith("**"))
