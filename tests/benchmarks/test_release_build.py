import json
from types import SimpleNamespace

import pytest

pytest.importorskip("matplotlib")
from benchmarks.release import build
from benchmarks.release.build import BuildConfig, keypoints_of
from sb3_permakey.scores import GroundTruthError


def labelled(*counts):
    """Frames with so many objects each."""
    return SimpleNamespace(objects=[(SimpleNamespace(categories=["ball"] * count), None) for count in counts])


@pytest.mark.parametrize(("counts", "expected"), [((6, 7), 7), ((2, 2), 5), ((30, 40), 25), ((8, 8), 8)])
def test_a_game_gets_as_many_keypoints_as_it_shows_objects(monkeypatch, counts, expected):
    monkeypatch.setattr(build, "labelled_frames", lambda game, **settings: labelled(*counts))
    assert keypoints_of("Pong") == expected
    assert keypoints_of("Frostbite") == 20


def test_a_game_that_nobody_knows_gets_ten(monkeypatch):
    def fail(game, **settings):
        raise GroundTruthError("OCAtari does not know it")

    monkeypatch.setattr(build, "labelled_frames", fail)
    assert keypoints_of("Pong") == 10


def test_building_goes_from_frames_to_a_scored_student(tmp_path, monkeypatch):
    done = []

    def note(name, result):
        def run(config):
            done.append((name, config))
            return result(config)

        monkeypatch.setattr(build, name, run)

    note("collect", lambda config: None)
    note("pretrain", lambda config: config.out)
    note("distil", lambda config: config.out)
    note("score", lambda config: {"scores": {"keypoints": {"f1": config.checkpoints[0]}}})
    config = BuildConfig(("Pong",), num_keypoints=6, frames=50, folder=tmp_path)
    student = build.build("Pong", config)
    assert [name for name, _ in done] == ["collect", "pretrain", "distil", "score", "score"]
    (_, collected), (_, trained), (_, distilled), *_ = done
    assert collected.frames == 50
    assert collected.out == trained.frames == distilled.frames
    assert trained.model.num_keypoints == 6
    assert distilled.teacher == str(trained.out)
    assert student == distilled.out == tmp_path / "pong-student.safetensors"
    result = json.loads((tmp_path / "pong.build.json").read_text())
    assert result["scores"]["student"] == {"f1": str(student)}
    build.build("Pong", config)
    assert [name for name, _ in done[5:]] == ["collect", "pretrain", "distil"]
