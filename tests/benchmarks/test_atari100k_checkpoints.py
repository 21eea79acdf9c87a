import re
from pathlib import Path

import pytest

from benchmarks.atari100k import run as benchmark
from benchmarks.atari100k.checkpoints import (
    Checkpoint,
    WantedCheckpoint,
    find_checkpoint,
    pretraining,
    require_checkpoint,
)
from benchmarks.atari100k.run import Atari100kBenchmark, make_tasks
from benchmarks.atari100k.tasks import make_run
from sb3_permakey.keypoints.shipped import CheckpointError


def test_peaks_take_any_number_from_the_papers_checkpoint_and_pointnets_their_own():
    def wanted(method, preset):
        return make_run("MsPacman", method, preset, "clean", 5, 0).wanted_checkpoint

    assert wanted("permakey-peaks-gnn", "paper").num_keypoints == 7
    assert wanted("permakey-gnn", "paper").num_keypoints == 5
    assert wanted("true-positions-gnn", "paper").num_keypoints == 5
    assert wanted("true-positions-gnn", "strong").num_keypoints == 7
    assert wanted("transporter-cnn", "paper").method == "transporter"
    assert wanted("random", "paper") is None


def test_games_that_the_paper_lacks_need_a_number_of_keypoints(tmp_path):
    with pytest.raises(ValueError, match="the paper has no number of keypoints for 'Pong'"):
        make_run("Pong", "permakey-gnn", "paper", "clean", None, 0)
    for method in ("permakey-gnn", "permakey-peaks-gnn"):
        wanted = make_run("Pong", method, "paper", "clean", 8, 0).wanted_checkpoint
        config = pretraining(wanted, tmp_path)
        assert config.out == tmp_path / "pong-permakey-clean-k8-0.safetensors"
        assert config.model.num_keypoints == 8
        assert find_checkpoint(wanted, tmp_path) is None


def test_shipped_checkpoints_are_found_and_missing_ones_named_with_their_commands(tmp_path):
    found = find_checkpoint(WantedCheckpoint("Seaquest", "transporter", "clean", 10), tmp_path)
    assert found.path.name == "seaquest-transporter.safetensors"
    assert found.minutes > 0
    missing = WantedCheckpoint("MsPacman", "permakey", "both", 5)
    message = r"no permakey checkpoint of MsPacman \(both frames, 5 keypoints\): add --pretrain, or make it with "
    with pytest.raises(CheckpointError, match=message) as error:
        require_checkpoint(missing, tmp_path)
    assert "sb3-permakey collect --game MsPacman --out" in str(error.value)
    assert re.search("sb3-permakey pretrain .* --num-keypoints 5 .* --distractor both", str(error.value))
    path = pretraining(missing, tmp_path).out
    assert path == tmp_path / "mspacman-permakey-both-k5-0.safetensors"
    path.touch()
    assert find_checkpoint(missing, tmp_path) == (path, None)


def test_students_are_the_packages_own_or_named_with_what_makes_them():
    wanted = make_run("MsPacman", "permakey-student-rainbow", "rainbow", "clean", None, 0).wanted_checkpoint
    assert require_checkpoint(wanted).path.name == "mspacman.safetensors"
    missing = WantedCheckpoint("Pong", "distilled", "both", 8)
    assert find_checkpoint(missing) is None
    with pytest.raises(CheckpointError, match=r"python -m benchmarks.distilled --games Pong --noise both`"):
        require_checkpoint(missing)


def test_missing_checkpoints_are_trained_when_wanted(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(benchmark, "find_checkpoint", lambda wanted: None)
    monkeypatch.setattr(
        benchmark,
        "pretrain",
        lambda wanted: made.append(wanted) or Checkpoint(Path("x.safetensors"), 2.0),
    )
    tasks = make_tasks(Atari100kBenchmark(games=("MsPacman",), keypoints=(5, 6), pretrain=True))
    assert [wanted.num_keypoints for wanted in made] == [5, 6]
    assert len(tasks) == 6
    assert tasks[0].folder.is_absolute()
    assert tasks[0].results.is_absolute()
