from benchmarks.speed.noisy import METHODS, NoisySpeed, measure, noisy_table


def test_students_and_teachers_play_with_and_without_bars(keep_threads):
    found = measure("MsPacman", NoisySpeed(steps=2, turns=3))
    assert list(found) == list(METHODS)
    for turns in found.values():
        assert {noise: len(speeds) for noise, speeds in turns.items()} == {"clean": 3, "both": 3}
        assert min(min(speeds) for speeds in turns.values()) > 0


def test_the_table_has_the_medians_and_their_ratio():
    turns = {"clean": [100.0, 200.0, 1.0], "both": [90.0, 80.0, 1000.0]}
    assert noisy_table({"Pong": {"student": turns}})[2] == "| Pong | student | 100 | 90 | 0.90 |"
