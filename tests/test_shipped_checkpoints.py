"""The package's own checkpoints keep, on games that nothing was chosen on, what the index says of them."""

from functools import lru_cache

import pytest

from sb3_permakey import PermaKeyObservation, make_atari_env
from sb3_permakey.keypoints import KeypointDetector, checkpoint_metadata, load_checkpoint, shipped_checkpoints
from sb3_permakey.scores import GroundTruthError, detect_pairs, labelled_frames, score_keypoints

SHIPPED = {
    checkpoint.name: checkpoint
    for checkpoint in sorted(shipped_checkpoints(), key=lambda one: (one.game, one.noise or "", one.name))
}
PAPERS_GAMES = {checkpoint.game for checkpoint in SHIPPED.values() if checkpoint.method == "transporter"}
OF_PAPERS_GAMES = [name for name, checkpoint in SHIPPED.items() if checkpoint.game in PAPERS_GAMES]
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in SHIPPED if name not in OF_PAPERS_GAMES]
# fmt: off
ATARI_100K = {
    "Alien", "Amidar", "Assault", "Asterix", "BankHeist", "BattleZone", "Boxing", "Breakout", "ChopperCommand",
    "CrazyClimber", "DemonAttack", "Freeway", "Frostbite", "Gopher", "Hero", "Jamesbond", "Kangaroo", "Krull",
    "KungFuMaster", "MsPacman", "Pong", "PrivateEye", "Qbert", "RoadRunner", "Seaquest", "UpNDown",
}
# fmt: on
FRESH_SEED = 1
"""The index was measured with seed 0."""
LEAST_SHARE = 0.85
"""Of an index's figure, on so few frames."""
READINGS = {
    "": {"readout": "pointnet"},
    "peaks_": {"readout": "peaks"},
    "contrast_": {"readout": "peaks", "surround_px": 18.0},
}
"""What the index' figures begin with, and the detector's settings that they are of."""
MARGIN = 2
"""Half 95 % intervals between fresh figure and index: the index's is of some frames too, and many are compared."""
ROUNDING = {"permakey": 0.01, "transporter": 0.04, "distilled": 0.01}
"""What the processor may change. Keypoints that stand still all cross the edge of the 3 pixels that count at once, in
every frame, which no interval over episodes tells. PermaKey is read in float32 everywhere, the Transporter in bfloat16
where the processor multiplies in it, as the index was: MontezumaRevenge's then scores .379, and .344 in float32, for
one of its twelve keypoints; the others' figures differ by .005 at most, and PermaKey's would by .006. Between AVX-512
and AVX2, and between one thread and two, no figure's fourth digit differed where they were compared."""
NEXT_TO_NOTHING, SLACK = 0.2, 0.04
"""Keypoints below the first figure hit as much as random points, and chance takes a share of it: it may differ by this
much either way."""


@lru_cache(maxsize=1)
def fresh_frames(game, noise):
    """Of a game's checkpoints one after another, which see the same."""
    return labelled_frames(game, episodes=12, frames=60, spacing=8, seed=FRESH_SEED, distractor=noise)


def test_students_of_the_papers_games_and_all_of_atari_100k_are_in_the_package():
    games = PAPERS_GAMES | ATARI_100K
    assert len(games) == 29
    students = {checkpoint.game for checkpoint in SHIPPED.values() if checkpoint.method == "distilled"}
    assert games <= students
    assert all(SHIPPED[game.lower()].method == "distilled" for game in games)


@pytest.mark.parametrize("name", SHIPPED)
def test_loads_by_name_and_is_small(name):
    checkpoint, model = SHIPPED[name], load_checkpoint(name)
    assert checkpoint.path.stat().st_size <= (300_000 if checkpoint.method == "distilled" else 4_500_000)
    assert type(model).__name__.lower() == checkpoint.method
    assert model.config.num_keypoints == checkpoint.num_keypoints
    assert model.for_detection_only
    assert checkpoint_metadata(name)["command"] == checkpoint.command
    env = PermaKeyObservation(make_atari_env(checkpoint.game, distractor=checkpoint.noise), name)
    assert env.observation_space.readout.readout == ("pointnet" if model.has_pointnet else "peaks")
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)


@pytest.mark.parametrize("name", OF_PAPERS_GAMES + OTHERS)
def test_scores_what_the_index_says_on_fresh_frames(name):
    pytest.importorskip("ocatari")
    checkpoint = SHIPPED[name]
    if not checkpoint.scores:
        with pytest.raises(GroundTruthError):
            fresh_frames(checkpoint.game, checkpoint.noise)
        return
    labelled = fresh_frames(checkpoint.game, checkpoint.noise)
    for prefix, settings in READINGS.items():
        if f"{prefix}f1" not in checkpoint.scores:
            continue
        detector = KeypointDetector(name, streaming=True, **settings)
        found = score_keypoints(*detect_pairs(detector, labelled.frames), labelled, detector.config.window_std)
        said, rounding = checkpoint.scores[f"{prefix}f1"], ROUNDING[checkpoint.method]
        if said < NEXT_TO_NOTHING:
            assert abs(found["f1"].value - said) <= SLACK + rounding
            continue
        margin = MARGIN * (found["f1"].high - found["f1"].value) + rounding
        assert found["f1"].value + margin >= said, (prefix, found["f1"], said)
        assert found["f1"].value >= LEAST_SHARE * said
