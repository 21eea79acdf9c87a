"""Publish an agent that train.py trained on the Hugging Face Hub, with its score and, where ffmpeg is, a video.

    python push_to_hub.py --algo recurrent_dqn --env CartPoleNoVel-v1 --repo-id NAME/recurrent-dqn-cartpole

Log in first: `hf auth login`.
"""

import argparse
from pathlib import Path
from typing import Any

import rl_zoo3.import_envs  # noqa: F401 - registers environments
from huggingface_sb3 import EnvironmentName, ModelName, package_to_hub
from recurrent_agents import AGENTS
from rl_zoo3.utils import create_test_env, get_model_path, get_saved_hyperparams


def push(algo: str, env_id: str, folder: Path, repo_id: str, episodes: int, video_steps: int) -> str:
    """Evaluate the best checkpoint of the latest run and upload it.

    :param algo: "recurrent_dqn" or "recurrent_qrdqn"
    :param env_id: the environment's id
    :param folder: RL Zoo's log folder
    :param repo_id: "owner/name" on the Hub
    :param episodes: episodes of the evaluation
    :param video_steps: length of the video
    :return: the repository's address
    """
    env_name = EnvironmentName(env_id)
    _, model_path, log_path = get_model_path(0, str(folder), algo, env_name, load_best=True)
    hyperparameters, stats_path = get_saved_hyperparams(f"{log_path}/{env_name}", test_mode=True)
    env_kwargs: dict[str, Any] = hyperparameters.pop("env_kwargs", {})
    envs = create_test_env(
        env_id,
        stats_path=stats_path,
        hyperparams=hyperparameters,
        env_kwargs={**env_kwargs, "render_mode": "rgb_array"},
    )
    model = AGENTS[algo].load(model_path)
    return package_to_hub(
        model=model,
        model_name=ModelName(algo, env_name),
        model_architecture=AGENTS[algo].__name__,
        env_id=env_id,
        eval_env=envs,
        repo_id=repo_id,
        commit_message=f"{AGENTS[algo].__name__} on {env_id}",
        n_eval_episodes=episodes,
        video_length=video_steps,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", choices=AGENTS, required=True)
    parser.add_argument("--env", required=True, help="environment id")
    parser.add_argument("--folder", type=Path, default=Path("logs"), help="RL Zoo's log folder")
    parser.add_argument("--repo-id", required=True, help="owner/name on the Hub")
    parser.add_argument("--episodes", type=int, default=10, help="episodes of the evaluation")
    parser.add_argument("--video-steps", type=int, default=1000, help="length of the video")
    arguments = parser.parse_args()
    push(
        arguments.algo,
        arguments.env,
        arguments.folder,
        arguments.repo_id,
        arguments.episodes,
        arguments.video_steps,
    )
