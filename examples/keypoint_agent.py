"""A recurrent DQN that sees keypoints, on MsPacman."""

from stable_baselines3.common.evaluation import evaluate_policy

from sb3_permakey import PermaKeyObservation, RecurrentDQN, make_atari_env

CHECKPOINT = "mspacman"

env = PermaKeyObservation(make_atari_env("MsPacman", seed=0), CHECKPOINT)
model = RecurrentDQN("PermaKeyPolicy", env, learning_starts=500, verbose=1, seed=0)
model.learn(2_000, progress_bar=True)

# Each life is an episode, as in training; SB3's Monitor counts whole games and their own scores.
games = PermaKeyObservation(make_atari_env("MsPacman", seed=1_000_000), CHECKPOINT)
mean, std = evaluate_policy(model, games, n_eval_episodes=3)
print(f"score over 3 games: {mean:.0f} +- {std:.0f}")
