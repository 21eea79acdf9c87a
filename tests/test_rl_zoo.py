"""The scripts of examples/rl_zoo, as a user runs them."""

import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("rl_zoo3", reason="RL Zoo is an extra")
optuna, yaml = pytest.importorskip("optuna"), pytest.importorskip("yaml")

SCRIPTS = Path(__file__).parents[1] / "examples" / "rl_zoo"
ENV = "CartPoleNoVel-v1"
QUICK = ["--env", ENV, "--seed", "0", "--eval-freq", "60", "--eval-episodes", "1", "-f", "logs"]
ALGOS = ["recurrent_dqn", "recurrent_qrdqn", "rainbow"]
FEW_STEPS = ["-n", "120", "-params", "learning_starts:100", "buffer_size:2000"]


def run(folder, script, *arguments):
    """Output of a script; an error where it fails."""
    done = subprocess.run(
        [sys.executable, SCRIPTS / script, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A folder in which the agents are trained."""
    folder = tmp_path_factory.mktemp("zoo")
    for algo in ALGOS:
        run(folder, "train.py", "--algo", algo, *QUICK, *FEW_STEPS)
    return folder


@pytest.fixture
def recurrent_agents(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import recurrent_agents

    return recurrent_agents


@pytest.mark.parametrize("algo", ALGOS)
def test_trains_with_our_hyperparameters_and_enjoys(algo, logs):
    config = (logs / "logs" / algo / f"{ENV}_1" / ENV / "config.yml").read_text()
    assert ("sequence_length" in config) == (algo != "rainbow")
    assert ("v_max" in config) == (algo == "rainbow")
    assert ("n_quantiles" in config) == (algo == "recurrent_qrdqn")
    out = run(logs, "enjoy.py", "--algo", algo, "--env", ENV, "-f", "logs", "--no-render", "-n", "200", "--load-best")
    assert "Mean reward:" in out


def test_optimises(tmp_path):
    pytest.importorskip("pandas", reason="RL Zoo's report of an optimisation needs it")
    flags = ["-optimize", "--n-trials", "1", "--n-evaluations", "1", "--no-optim-plots"]
    run(tmp_path, "train.py", "--algo", "recurrent_qrdqn", *QUICK, *FEW_STEPS, *flags)
    (report,) = (tmp_path / "logs" / "recurrent_qrdqn").glob("report_*.csv")
    header, trial = report.read_text().splitlines()
    assert "params_n_quantiles" in header
    assert trial.endswith("COMPLETE")


def test_another_configuration_file_wins(tmp_path, recurrent_agents, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--algo=recurrent_dqn", "--conf-file", "mine.yml"])
    recurrent_agents.prefer_our_hyperparameters()
    assert sys.argv[1] == "--conf-file"
    assert Path(sys.argv[2]).name == "recurrent_dqn.yml"
    assert sys.argv[3:] == ["--algo=recurrent_dqn", "--conf-file", "mine.yml"]
    others = ["train.py", "--algo", "ppo"]
    monkeypatch.setattr(sys, "argv", list(others))
    recurrent_agents.prefer_our_hyperparameters()
    assert sys.argv == others


def test_sampled_hyperparameters_are_the_agents_arguments(recurrent_agents):
    sampled = {
        "one_minus_gamma": 0.05,
        "batch_size_pow": 4,
        "sequence_length_pow": 3,
        "learning_rate": 1e-3,
        "rnn_type": "gru",
        "n_quantiles": 7,
    }
    assert recurrent_agents.to_arguments(sampled) == {
        "gamma": pytest.approx(0.95),
        "batch_size": 16,
        "sequence_length": 8,
        "learning_rate": 1e-3,
        "policy_kwargs": {"rnn_type": "gru", "n_quantiles": 7},
    }


@pytest.mark.parametrize("algo", ALGOS)
def test_samples_make_agents(algo, recurrent_agents):
    from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(5):
        trial = study.ask()
        arguments = HYPERPARAMS_SAMPLER[algo](trial, 0, 1, {})
        policy = "MlpPolicy" if algo == "rainbow" else "MlpLstmPolicy"
        recurrent_agents.AGENTS[algo](policy, "CartPole-v1", device="cpu", **arguments)
        assert HYPERPARAMS_CONVERTER[algo](trial.params) == arguments


@pytest.mark.parametrize("algo", ALGOS)
def test_hyperparameter_files_name_arguments_that_exist(algo, recurrent_agents):
    content = yaml.safe_load((recurrent_agents.HYPERPARAMETERS / f"{algo}.yml").read_text())
    known = {*inspect.signature(recurrent_agents.AGENTS[algo]).parameters, "n_timesteps", "env_wrapper"}
    for settings in content.values():
        assert set(settings) <= known


def test_pushes_the_best_checkpoint_to_the_hub(logs, recurrent_agents, monkeypatch):
    pytest.importorskip("pygame", reason="the video needs it")
    from huggingface_hub import HfApi
    from push_to_hub import push

    uploaded = {}

    def create_repo(self, repo_id, exist_ok, **settings):
        return type("RepoUrl", (str,), {"repo_id": repo_id})(f"https://hub.example/{repo_id}")

    def upload_folder(repo_id, folder_path, commit_message, **settings):
        uploaded.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir() if path.is_file()})
        return f"https://hub.example/{repo_id}"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **settings: upload_folder(**settings))
    monkeypatch.setattr(import_module("huggingface_sb3.push_to_hub"), "upload_folder", upload_folder, raising=False)
    monkeypatch.chdir(logs)
    address = push("recurrent_dqn", ENV, Path("logs"), "me/agent", episodes=2, video_steps=5)
    assert address == "https://hub.example/me/agent"
    assert {f"recurrent_dqn-{ENV}.zip", "README.md", "results.json", "config.json"} <= set(uploaded)
    assert b"RecurrentDQN" in uploaded["README.md"]
