import json
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from conftest import MovingSquare
from PIL import Image

from sb3_permakey import PermaKeyObservation, RecurrentDQN, cli
from sb3_permakey.cli import COMMANDS
from sb3_permakey.commands.output import NEXT_VARIABLE
from sb3_permakey.envs.atari import PREPROCESSING
from sb3_permakey.files import write_json
from sb3_permakey.frames.store import FrameStore
from sb3_permakey.keypoints import (
    ReadoutConfig,
    load_checkpoint,
)
from sb3_permakey.pretraining.config import PretrainConfig
from sb3_permakey.scores import GroundTruthError
from sb3_permakey_start import main as start

SHOW = ("show", "--checkpoint", "mspacman", "--frames", "x", "--out", "y.png")


@pytest.mark.parametrize("command", ["", *COMMANDS, "pretrain --preset strong"])
def test_help_fits_two_screens(run, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, output, _ = run(*command.split(), "--help")
    assert code == 0
    assert "show this help message" in output
    assert len(output.splitlines()) <= 100


def test_without_a_command_there_is_help(run):
    assert run() == run("--help")


@pytest.mark.skipif(shutil.which("bash") is None, reason="completes in bash")
@pytest.mark.parametrize(("typed", "completed"), [("tra", ["train"]), ("train --learning-r", ["--learning-rate"])])
def test_completion(run, tmp_path, typed, completed):
    code, script, _ = run("completion", "bash")
    assert code == 0
    (tmp_path / "script").write_text(script)
    words = " ".join(["sb3-permakey", typed])
    ask = f"source ./script; COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}"
    function = re.search(r"complete .*-F (\S+)", script).group(1)
    command = f'{ask}; {function}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    found = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line.strip() for line in found.stdout.splitlines()] == completed
    assert run("completion", "zsh")[1].startswith("#compdef sb3-permakey")


def test_flags_come_from_the_dataclasses(run):
    _, output, _ = run("pretrain", "--help")
    for flag in ("--num-keypoints", "--window-std", "--kl-weight", "--schedule", "--max-minutes", "--precision"):
        assert flag in output
    assert "(default: 0.001)" in output
    assert "Adam's (paper: 2e-4; the transporter's: 5e-4)." in output


def test_help_of_train_has_the_values_of_each_preset(run):
    _, output, _ = run("train", "--help")
    text = " ".join(output.replace("│", " ").split())
    assert "Windows in a batch; of Rainbow transitions. (paper: 16; recurrent strong, rainbow: 32)" in text
    assert "(paper, recurrent strong: 10000; rainbow: 2000)" in text
    assert "(paper: concat; recurrent strong: pool; rainbow: -)" in text
    assert "Steps in the replay buffer. (default: 100000)" in text


@pytest.mark.parametrize("flags", [("--preset", "strong"), ("--preset=strong",)])
def test_preset_decides_what_flags_are_by_default(run, monkeypatch, flags):
    configs = []
    monkeypatch.setitem(COMMANDS, "pretrain", (PretrainConfig, configs.append))
    given = ("--frames", "x", "--out", "y.safetensors")
    assert run("pretrain", *given)[0] == run("pretrain", *given, *flags, "--map-power", 1, "--max-steps", 9)[0] == 0
    paper, strong = configs
    assert (paper.schedule, paper.model.softmax, paper.max_steps) == ("joint", "axes", None)
    assert (strong.schedule, strong.model.softmax, strong.pointnet_steps) == ("staged", "plane", 8000)
    assert (strong.model.map_power, strong.max_steps) == (1, 9)
    _, output, _ = run("pretrain", *flags, "--help")
    assert "(default: staged)" in output


def test_the_whole_way(run, tmp_path):
    frames, checkpoint, agent = tmp_path / "frames", tmp_path / "model.safetensors", tmp_path / "agent"
    code, output, errors = run(
        "collect", "--game", "MsPacman", "--frames", 150, "--max-episode-steps", 40, "--out", frames
    )
    assert code == 0, errors
    assert "next: sb3-permakey pretrain" in output
    pretrain = ("pretrain", "--frames", frames, "--out", checkpoint, "--batch-size", 4, "--max-steps", 2)
    code, output, errors = run(*pretrain, "--num-keypoints", 3, "--schedule", "staged", "--no-score")
    assert code == 0, errors
    assert "next: sb3-permakey show" in output
    show = ("show", "--checkpoint", checkpoint, "--frames", frames, "--out", tmp_path / "keypoints.png")
    code, output, errors = run(
        *show, "--gif", tmp_path / "keypoints.gif", "--gif-frames", 3, "--columns", 2, "--first", 2
    )
    assert code == 0, errors
    assert f"next: sb3-permakey train --game MsPacman --checkpoint {checkpoint}" in output
    gif = Image.open(tmp_path / "keypoints.gif")
    assert gif.n_frames == 3
    assert 2 * 252 < gif.width < 3 * 252  # the PointNet's keypoints, and beside them peaks
    five_rows = Image.open(tmp_path / "keypoints.png").height
    code, output, errors = run(*show, "--readout", "peaks", "--gif", tmp_path / "peaks.gif", "--gif-frames", 2)
    assert code == 0, errors
    assert f"--checkpoint {checkpoint} --readout peaks --out mspacman-agent" in output
    assert 252 < Image.open(tmp_path / "peaks.gif").width < 2 * 252
    assert 252 < five_rows - Image.open(tmp_path / "keypoints.png").height < 2 * 252
    train = ("train", "--game", "MsPacman", "--checkpoint", checkpoint, "--out", agent, "--steps", 60)
    train += ("--learning-starts", 20, "--batch-size", 2, "--validate-every", 50, "--validation-episodes", 1)
    code, output, errors = run(*train)
    assert code == 0, errors
    assert "the best agent of 1 validation(s), mean score" in output
    assert f"{agent / 'run'}: with it the same command goes on to more --steps" in output
    assert re.search(r"validation after +50 steps: mean score [-.0-9]+, from .* in 1 game.s.; the best so far", output)
    assert json.loads((agent / "config.json").read_text())["learning_rate"] == 2e-4
    evaluate = ("evaluate", "--game", "MsPacman", "--agent", agent / "best_model.zip", "--checkpoint", checkpoint)
    flags = ("--out", tmp_path / "evaluation.json", "--video", tmp_path / "agent.mp4", "--seeds", 2)
    code, table, errors = run(*evaluate, *flags)
    assert code == 0, errors
    result = json.loads((tmp_path / "evaluation.json").read_text())
    for player in ("agent", "random"):
        assert [game["seed"] for game in result[player]["games"]] == result["seeds"] == [2_000_000, 2_000_001]
        assert result[player]["mean"] == sum(game["score"] for game in result[player]["games"]) / 2
        assert f"{result[player]['mean']:.1f}" in table
    assert result["machine"]["cores"] >= 1
    assert (tmp_path / "agent.mp4").stat().st_size > 1000

    before = (tmp_path / "evaluation.json").stat().st_mtime_ns
    assert run(*evaluate, *flags)[1].splitlines()[1:] == table.splitlines()[1:]
    assert (tmp_path / "evaluation.json").stat().st_mtime_ns == before
    assert "holds another evaluation" in run(*evaluate, *flags[:-1], 3)[2]
    assert "already holds a trained agent" in run(*train)[2]
    other_game = [("Seaquest" if part == "MsPacman" else part) for part in evaluate]
    assert "but Seaquest has Discrete(18)" in run(*other_game, "--out", tmp_path / "other.json")[2]


@pytest.mark.parametrize("method", ["permakey", "transporter"])
def test_one_command_goes_from_a_game_to_its_scores(run, tmp_path, monkeypatch, method):
    scored = []

    def score(config):
        scored.append(config)
        raise GroundTruthError("no objects today")

    monkeypatch.setattr("sb3_permakey.commands.score.score", score)
    checkpoint = tmp_path / "pong.safetensors"
    flags = ("--game", "Pong", "--collect-frames", 2500, "--out", checkpoint, "--batch-size", 2, "--max-steps", 1)
    code, output, errors = run("pretrain", "--method", method, *flags, "--distractor", "both")
    assert code == 0, errors
    assert load_checkpoint(checkpoint).config.num_keypoints == 7
    assert FrameStore(tmp_path / "pong.frames").description["game"] == "ALE/Pong-v5"
    (config,) = scored
    assert (config.game, config.checkpoints, config.distractor) == ("Pong", (str(checkpoint),), "both")
    assert config.readout == ReadoutConfig("pointnet")
    assert "not scored: no objects today" in output


def test_show_of_the_contrast_and_the_commands_that_go_on(run, checkpoint, square_store, tmp_path, monkeypatch):
    show = ("show", "--checkpoint", checkpoint, "--frames", square_store.path, "--out", tmp_path / "keypoints.png")
    code, output, errors = run(*show, "--surround-px", 18, "--num-keypoints", 6, "--columns", 50)
    assert code == 0, errors
    assert "keypoints and error maps on 8 frames" in output  # of 60 every 8th
    both = Image.open(tmp_path / "keypoints.png").height
    settings = 'readout="peaks", num_keypoints=6, surround_px=18.0'
    assert f'next: in Python, PermaKeyObservation(env, "{checkpoint}", {settings})' in output
    assert run(*show, "--readout", "peaks", "--surround-px", 18)[0] == 0
    assert both - Image.open(tmp_path / "keypoints.png").height == 258

    description = {"game": "ALE/MsPacman-v5", "preprocessing": PREPROCESSING}
    write_json(square_store.path / "frames.json", {**square_store.description, **description})
    moved = tmp_path / "my model.safetensors"
    moved.write_bytes(checkpoint.read_bytes())
    _, output, errors = run(*show[:2], moved, *show[3:], "--centroid-px", 10)
    (line,) = [line for line in output.splitlines() if line.startswith("next: ")]
    flags = ["--checkpoint", str(moved), "--readout", "peaks", "--centroid-px", "10.0", "--out", "mspacman-agent"]
    assert shlex.split(line)[1:] == ["sb3-permakey", "train", "--game", "MsPacman", *flags]
    monkeypatch.setenv("SB3_PERMAKEY_NEXT", "0")
    _, output, _ = run(*show[:2], moved, *show[3:])
    assert "keypoints and error maps" in output
    assert "next:" not in output


def test_show_draws_where_an_agent_looks(run, refused, checkpoint, square_store, tmp_path):
    env = PermaKeyObservation(MovingSquare(), checkpoint, readout="peaks", num_keypoints=6, history=2)
    for name, encoder in (("looking", "attention"), ("other", "pairs")):
        agent = RecurrentDQN("PermaKeyPolicy", env, buffer_size=100, policy_kwargs={"keypoint_encoder": encoder})
        agent.save(tmp_path / f"{name}.zip")
    show = ("show", "--checkpoint", checkpoint, "--frames", square_store.path, "--out", tmp_path / "keypoints.png")
    show += ("--readout", "peaks", "--columns", 2, "--gif", tmp_path / "keypoints.gif", "--gif-frames", 3)
    assert run(*show)[0] == 0
    rows = Image.open(tmp_path / "keypoints.png").height
    code, _, errors = run(*show, "--agent", tmp_path / "looking.zip")
    assert code == 0, errors
    assert Image.open(tmp_path / "keypoints.png").height == rows + 258
    assert 2 * 252 < Image.open(tmp_path / "keypoints.gif").width < 3 * 252
    assert "its encoder is not KeypointAttention" in refused(*show, "--agent", tmp_path / "other.zip")


def test_one_place_names_the_next_command():
    sources = {path.name: path.read_text().count("next: ") for path in Path(cli.__file__).parent.rglob("*.py")}
    assert {name for name, count in sources.items() if count} == {"output.py"}
    assert sources["output.py"] == 1


def test_the_demo_says_where_it_is_and_names_no_next_commands():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    steps = re.findall(r'step (\d) of 5: .*"\n\t\$\(BIN\)/sb3-permakey (\w+)', makefile)
    commands = ("collect", "pretrain", "show", "train", "evaluate")
    assert sorted(steps) == [(str(number), command) for number, command in enumerate(commands, 1)]
    assert f"demo-steps: export {NEXT_VARIABLE} := 0" in makefile


def test_warnings_are_sentences(run, monkeypatch, tmp_path):
    monkeypatch.setattr("sb3_permakey.scores.scoring.labelled_frames", lambda *args, **settings: stop())

    def stop():
        raise GroundTruthError("no objects today")

    def shown(*warning):
        print(warnings.formatwarning(*warning[:4]), end="", file=sys.stderr)

    monkeypatch.setattr(warnings, "showwarning", shown)  # pytest's keeps them to itself
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        _, _, errors = run("score", "seaquest", "--game", "mspacman")
    assert errors.splitlines() == [
        "sb3-permakey: warning: the checkpoint seaquest was trained on Seaquest: its keypoints may miss what MsPacman "
        "shows",
        "sb3-permakey: no objects today",
    ]


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("collect --game Pong --out x", "the same command goes on"),
        ("pretrain --game Pong --out x.safetensors", "the same command goes on"),
        ("train --game Pong --out x", "the same command with --resume goes on from the last checkpoint"),
        ("score mspacman --game MsPacman", "nothing was written"),
        ("checkpoints", "nothing was written"),
    ],
)
def test_an_interrupt_says_how_to_go_on(run, monkeypatch, command, advice):
    def interrupted(config):
        raise KeyboardInterrupt

    name, *flags = command.split()
    monkeypatch.setitem(COMMANDS, name, (COMMANDS[name][0], interrupted))
    code, _, errors = run(name, *flags)
    assert code == 130
    assert errors.startswith(f"sb3-permakey: stopped; {advice}")


def test_a_reader_that_has_seen_enough_ends_a_command_in_silence(run, monkeypatch):
    def gone(*args, **settings):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("builtins.print", gone)
    code, _, errors = run("checkpoints")
    assert (code, errors) == (141, "")


def test_an_interrupt_while_the_package_is_imported(capsys, monkeypatch):
    class Interrupting:
        def find_spec(self, name, path, target=None):
            if name == "sb3_permakey.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "sb3_permakey.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    with pytest.raises(SystemExit) as stop:
        start()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "sb3-permakey: stopped; nothing was done\n"


def test_the_start_runs_the_command_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sb3-permakey", "checkpoints"])
    start()
    assert "mspacman-transporter" in capsys.readouterr().out


@pytest.mark.parametrize(("fault", "is_told"), [(torch.empty, True), (torch.linalg.inv, False)])
def test_too_little_memory_is_told_and_other_faults_are_shown(run, monkeypatch, fault, is_told):
    def fail(config):
        fault(10**15) if is_told else fault(torch.zeros(2, 2))

    monkeypatch.setitem(COMMANDS, "checkpoints", (COMMANDS["checkpoints"][0], fail))
    if is_told:
        code, _, errors = run("checkpoints")
        assert code == 2
        assert errors.startswith("sb3-permakey: these settings take more memory than there is (")
    else:
        with pytest.raises(RuntimeError, match="singular"):
            run("checkpoints")


def test_a_finished_pretraining_says_so_goes_on_and_is_scored_anew(run, frame_store, tmp_path, monkeypatch):
    scored = []

    def score(config):
        assert not config.out.exists()
        write_json(config.out, {})
        scored.append(config.readout)
        raise GroundTruthError("no objects today")

    monkeypatch.setattr("sb3_permakey.commands.score.score", score)
    out = tmp_path / "model.safetensors"
    pretrain = ("pretrain", "--frames", frame_store.path, "--out", out, "--batch-size", 4, "--num-keypoints", 3)
    run(*pretrain, "--max-steps", 1)
    before = out.read_bytes()
    output = run(*pretrain, "--max-steps", 1, "--no-score")[1]
    assert "model.safetensors: keypoint model, finished before: nothing was left to train; " in output
    assert out.read_bytes() == before
    output = run(*pretrain, "--max-steps", 2)[1]
    assert "finished before" not in output
    assert out.read_bytes() != before
    assert scored == [ReadoutConfig("pointnet")] * 2


def test_score(run, checkpoint, tmp_path):
    pytest.importorskip("ocatari")
    flags = ("--episodes", 1, "--frames", 3, "--spacing", 2, "--out", tmp_path / "scores.json")
    code, output, errors = run("score", checkpoint, "--game", "Pong", *flags, "--picture", tmp_path / "scores.png")
    assert code == 0, errors
    result = json.loads((tmp_path / "scores.json").read_text())
    assert f"{result['scores']['keypoints']['precision']['value']:.2f}" in output
    assert "Player" in result["objects_per_frame"]
    assert Image.open(tmp_path / "scores.png").width > 1000
