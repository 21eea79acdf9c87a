import numpy as np

from benchmarks.figures.shipped import PictureConfig, played_frame, rows
from sb3_permakey.figures import enlarge


def test_frames_are_the_same_each_time_and_move_on():
    first, again, later = (played_frame("Seaquest", steps, seed=0) for steps in (20, 20, 30))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)


def test_a_column_for_each_game_and_a_row_for_each_readout():
    found = rows(PictureConfig(games=("MsPacman", "Seaquest"), steps=5))
    assert [label for label, _ in found] == ["frame", "Transporter", "PermaKey,\nPointNet", "PermaKey,\npeaks"]
    pictures = np.array([[np.asarray(one) for one in row] for _, row in found])
    frames = [np.asarray(enlarge(played_frame(game, 5, seed=0))) for game in ("MsPacman", "Seaquest")]
    assert np.array_equal(pictures[0], frames)
    # Each reading has dots at places of its own.
    for column in (0, 1):
        assert len({picture.tobytes() for picture in pictures[:, column]}) == 4


def test_all_shipped_games_are_shown():
    assert PictureConfig().games[0] == "BattleZone"
    assert len(PictureConfig().games) == 7
