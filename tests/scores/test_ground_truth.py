import numpy as np
import pytest

from sb3_permakey.envs.atari import make_atari_env
from sb3_permakey.scores import FrameObjects, GroundTruth, GroundTruthError, ground_truth, labelled, labelled_frames
from sb3_permakey.scores.ground_truth import frame_box, is_display, is_shown


@pytest.mark.parametrize(
    ("xywh", "box"),
    [
        ((0, 0, 160, 210), (0, 0, 84, 84)),
        ((80, 105, 16, 10), (42, 42, 46, 50.4)),
        ((-8, 200, 16, 20), (80, 0, 84, 4.2)),
        ((160, 10, 8, 8), None),
        ((10, 10, 0, 8), None),
        ((10, 215, 8, 8), None),
    ],
)
def test_emulator_pixels_become_those_of_the_frame(xywh, box):
    assert frame_box(xywh, 210, 160) == (None if box is None else pytest.approx(box))


def test_displays_by_name():
    for category in ("PlayerScore", "Lives", "Temperature", "NumberOfCars", "Key_HUD"):
        assert is_display(category)
    assert is_display("Anything", is_hud=True)
    assert not is_display("OxygenBar", is_hud=True)
    assert not is_display("Player")


def test_what_is_shown():
    screen = np.zeros((210, 160, 3), np.uint8)
    assert not is_shown(screen, (50, 50, 8, 8))
    screen[52:56, 52:56] = 200
    assert is_shown(screen, (50, 50, 8, 8))
    screen[40, 100:108] = 90
    assert is_shown(screen, (100, 39, 8, 1))  # a missile, its box one row off
    screen[100:150, 20:120] = 70
    assert is_shown(screen, (20, 100, 100, 50))  # one colour inside, another around
    assert not is_shown(screen, (158, 100, 8, 8))
    screen[:, 8:] = 30
    assert not is_shown(screen, (0, 100, 8, 8))  # behind a black border
    assert not is_shown(screen, (200, 100, 8, 8))


@pytest.fixture
def truth_of():
    pytest.importorskip("ocatari")

    def truth_of(game: str) -> GroundTruth:
        env = make_atari_env(game, training=False)
        env.reset(seed=1)
        return GroundTruth(env, game)

    return truth_of


def test_seaquest_player_is_the_yellow_submarine(truth_of):
    truth = truth_of("Seaquest")
    down = truth.env.get_wrapper_attr("get_action_meanings")().index("DOWN")
    for _ in range(45):
        frame, *_ = truth.env.step(down)
        truth.step()
    objects = truth.objects()
    assert objects.categories.count("Player") == 1
    top, left, bottom, right = objects.boxes[objects.categories.index("Player")]
    assert 25 < top < bottom < 70
    red, _, blue = frame.astype(int).transpose(2, 0, 1)
    yellow = np.argwhere(red > blue + 40)
    yellow = yellow[(yellow[:, 0] > 25) & (yellow[:, 0] < 60)]  # below sky and score, above the sea's floor
    assert len(yellow) > 10
    assert yellow[:, 0].min() >= top - 1
    assert yellow[:, 0].max() + 1 <= bottom + 1
    assert yellow[:, 1].min() >= left - 1
    assert yellow[:, 1].max() + 1 <= right + 1
    displays = {name for name, flag in zip(objects.categories, objects.displays, strict=True) if flag}
    assert displays == {"PlayerScore", "Lives"}
    assert "OxygenBar" in objects.categories


def test_mspacman_has_no_pills_and_its_fruit_below_the_maze_is_a_display(truth_of):
    truth = truth_of("MsPacman")
    truth.env.step(0)
    truth.step()
    objects = truth.objects()
    assert "Player" in objects.categories
    assert not {"Pill", "PowerPill"} & set(objects.categories)
    assert objects.displays[objects.categories.index("Fruit")]


def test_enduro_shows_its_player_at_every_step(truth_of):
    truth = truth_of("Enduro")
    for step in range(60):
        frame, *_ = truth.env.step(1 if step % 2 else 2)
        truth.step()
        objects = truth.objects()
        top, left, bottom, right = objects.boxes[objects.categories.index("Player")].round().astype(int)
        # The car is light grey on a dark field.
        beside = frame[top:bottom, [*range(left - 5, left - 1), *range(right + 1, right + 5)]]
        assert frame[top:bottom, left:right].mean() > beside.mean() + 60
    assert objects.displays.sum() == 3


def test_each_reset_starts_afresh(truth_of):
    truth = truth_of("Seaquest")

    def play() -> FrameObjects:
        truth.env.reset(seed=3)
        truth.reset()
        for step in range(40):
            truth.env.step(step % 18)
            truth.step()
        return truth.objects()

    first, second = play(), play()
    assert (first.boxes == second.boxes).all()
    assert first.identities == second.identities


def test_objects_found_by_colour_keep_their_identity(truth_of):
    truth = truth_of("BattleZone")
    box = np.array([[10.0, 10, 12, 12], [40, 40, 44, 44]])
    truth.seen = FrameObjects(box, ("Shot", "Blue_Tank"), ("Shot 0", "Blue_Tank 1"), np.zeros(2, bool))
    truth.identities_given = 2
    # The list's order turns round, the tank moves, a second shot comes up, and the first one goes on.
    boxes = np.array([[42.0, 44, 46, 48], [70, 70, 72, 72], [12, 12, 14, 14]])
    found = FrameObjects(boxes, ("Blue_Tank", "Shot", "Shot"), ("", "", ""), np.zeros(3, bool))
    assert truth._identified(found).identities == ("Blue_Tank 1", "Shot 2", "Shot 0")


def test_a_game_that_ocatari_does_not_know(truth_of):
    with pytest.raises(GroundTruthError, match="OCAtari knows no objects of ElevatorAction"):
        truth_of("ElevatorAction")


def test_labelled_frames_are_pairs_of_steps_decided_by_the_seed(monkeypatch):
    pytest.importorskip("ocatari")
    monkeypatch.setattr(labelled, "MAX_EPISODE_STEPS", 30)
    settings = {"episodes": 2, "frames": 8, "spacing": 5}
    clean = labelled_frames("Pong", **settings)
    assert clean.frames.shape == (8, 2, 84, 84, 3)
    assert clean.episodes.tolist() == [0] * 4 + [1] * 4
    assert clean.bars is None
    assert (clean.frames[0, 0] != clean.frames[4, 0]).any()
    noisy = labelled_frames("Pong", **settings, distractor="both")
    purple = (noisy.frames[:, 0] == (128, 0, 255)).all(axis=-1)
    for mask, top, left in zip(purple, *noisy.bars, strict=True):
        assert mask[top : top + 5].all()
        assert mask[:, left : left + 5].all()
    # The game is the same beside the bars.
    assert (noisy.frames[:, 0][~purple] == clean.frames[:, 0][~purple]).all()
    assert [first.identities for first, _ in clean.objects] == [first.identities for first, _ in noisy.objects]
    other = labelled_frames("Pong", **settings, seed=1)
    assert (other.frames != clean.frames).any()


def test_frames_that_ocatari_fails_on_are_dropped(monkeypatch):
    pytest.importorskip("ocatari")
    monkeypatch.setattr(labelled, "MAX_EPISODE_STEPS", 40)
    steps = []
    step = GroundTruth.step

    def failing(self):
        steps.append(1)
        if len(steps) in failures:
            raise GroundTruthError("fails")
        step(self)

    monkeypatch.setattr(GroundTruth, "step", failing)
    failures = {20}
    result = labelled_frames("Pong", episodes=1, frames=100, spacing=10)
    assert (len(result.frames), result.dropped) == (2, 1)
    failures = set(range(1000))
    with pytest.raises(GroundTruthError, match="no frames of Pong to score: OCAtari fails on every frame"):
        labelled_frames("Pong", episodes=1, frames=100, spacing=10)


def test_tables_name_atari_games():
    for game in (*ground_truth.VISION_GAMES, *ground_truth.RAM_CATEGORIES, *ground_truth.FIRST_DISPLAY_ROW_PX):
        assert make_atari_env(game).action_space.n > 1
