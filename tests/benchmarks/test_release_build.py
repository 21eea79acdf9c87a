from types import SimpleNamespace

import pytest

pytest.importorskip("matplotlib")
from benchmarks.distilled.run import distil_config
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
        def run(*given):
            done.append((name, given))
            return result(*given)

        monkeypatch.setattr(build, name, run)

    note("collect", lambda config: None)
    note("pretrain", lambda config: config.out)
    note("do_run", lambda run, benchmark: "a line")
    config = BuildConfig(("Pong",), 6, frames=50, steps=9, folder=tmp_path, students=tmp_path / "s", results=tmp_path)
    build.main(config)
    (_, [collected]), (_, [trained]), (_, [student, benchmark]) = done
    assert [name for name, _ in done] == ["collect", "pretrain", "do_run"]
    assert collected.frames == 50
    assert (trained.max_steps, trained.pointnet_steps, trained.model.num_keypoints) == (9, 1, 6)
    assert student.teacher == str(trained.out)
    distilled = distil_config(student, benchmark)
    assert distilled.frames == collected.out == trained.frames
    assert distilled.out == tmp_path / "s" / "pong-clean-0.safetensors"
    (benchmark.results / "pong-clean-0.json").touch()
    build.main(config)
    assert len(done) == 3
