"""Arguments of the agents: published ones, and one of the recurrent agent for keypoints on Atari."""

from typing import Any

from sb3_permakey.encoders import SmallCNN

R2D2: dict[str, Any] = {
    "learning_rate": 1e-4,
    "batch_size": 64,
    "sequence_length": 80,
    "burn_in": 40,
    "recurrent_state": "stored",
    "gamma": 0.997,
    "n_steps": 5,
    "double_q": True,
    "tau": 1.0,
    "target_update_interval": (2500, "update"),
    "max_grad_norm": 40,
    "prioritized_replay": True,
    "priority_alpha": 0.9,
    "priority_beta": 0.6,
    "priority_eta": 0.9,
    "value_rescaling": True,
    "policy_kwargs": {
        "lstm_hidden_size": 512,
        "dueling": True,
        "net_arch": [512],
        "optimizer_kwargs": {"eps": 1e-3},
    },
}
"""R2D2 (Kapturowski et al. 2019, table 2 and section 2.3; the gradient norm's limit is that of its predecessor Ape-X,
Horgan et al. 2018). Its buffer, exploration and 256 actors are left to the user; its network also takes the previous
action and reward, which `PreviousActionReward` adds.

    RecurrentDQN("MultiInputLstmPolicy", PreviousActionReward(env), **R2D2)
"""

STRONG: dict[str, Any] = {
    "learning_rate": 2e-4,
    "batch_size": 32,
    "sequence_length": 8,
    "train_freq": 2,
    "exploration_fraction": 0.4,
    "exploration_final_eps": 0.05,
    "recurrent_state": "stored",
    "burn_in": 4,
    "policy_kwargs": {
        "dueling": True,
        "act_with_target": True,
        "features_extractor_kwargs": {"aggregate": "pool", "layer_norm": True, "position_frequencies": 4},
    },
}
"""More and larger updates than the paper's agent makes, which is `RecurrentDQN`'s defaults, and a GNN that learns
sooner, for peaks on Atari; chosen by the runs under "Settings tried" in benchmarks/results/atari100k.md. A burn-in of 8
would leave a third fewer windows with another first action than the whole episode gives, for a fifth more time
(benchmarks/results/stale_states.md); 4 stays until scores say so too.

    env = PermaKeyObservation(make_atari_env("MsPacman"), "mspacman", readout="peaks")
    RecurrentDQN("PermaKeyPolicy", env, **STRONG)
"""

BBF: dict[str, Any] = {
    "learning_rate": 1e-4,
    "batch_size": 32,
    "learning_starts": 2_000,
    "train_freq": 1,
    "gradient_steps": 2,
    "tau": 0.005,
    "n_steps": (10, 3, 10_000),
    "gamma": (0.97, 0.997, 10_000),
    "exploration_fraction": 0.04,
    "exploration_final_eps": 0.0,
    "value_head": "categorical",
    "reset_interval": 40_000,
    "last_reset": 120_000,
    "reset_shrink": 0.5,
    "act_with_target": True,
    "weight_decay": 0.1,
}
"""BBF at two updates a step (Schwarzer et al. 2023, https://arxiv.org/abs/2305.19452, appendix A, and its released
code), but for its large network and its self-predictive loss; for 100,000 steps, of which the first 2,000 are random
and 2,000 more explore. These are `Rainbow`'s defaults.

    Rainbow("CnnPolicy", env, **BBF)
"""

RAINBOW_PEAKS: dict[str, Any] = {**BBF, "learning_rate": 3e-4}
"""BBF's settings with a larger learning rate, for the small network on keypoints; chosen by the runs under "Settings
tried" in benchmarks/results/atari100k.md.

    env = PermaKeyObservation(make_atari_env("MsPacman"), "mspacman", readout="peaks", history=3)
    Rainbow("PermaKeyPolicy", env, **RAINBOW_PEAKS)
"""

RAINBOW: dict[str, Any] = {
    "learning_rate": 6.25e-5,
    "batch_size": 32,
    "buffer_size": 1_000_000,
    "learning_starts": 20_000,
    "train_freq": 4,
    "gradient_steps": 1,
    "tau": 1.0,
    "target_update_interval": 8_000,
    "n_steps": 3,
    "gamma": 0.99,
    "exploration_fraction": 0.02,
    "exploration_final_eps": 0.01,
    "priority_alpha": 0.5,
    "priority_beta": 0.4,
    "reset_interval": 0,
    "act_with_target": False,
    "weight_decay": 0.0,
}
"""Rainbow for long training (Hessel et al. 2018, https://arxiv.org/abs/1710.02298, table 1), with epsilon-greedy play
instead of noisy layers, as its ablation of these had it. Steps are agent steps, four frames each; priority_beta stays
at its first value.

    Rainbow("CnnPolicy", env, **RAINBOW)
"""

DATA_EFFICIENT_RAINBOW: dict[str, Any] = {
    "learning_rate": 1e-4,
    "batch_size": 32,
    "learning_starts": 1_600,
    "train_freq": 1,
    "gradient_steps": 1,
    "tau": 1.0,
    "target_update_interval": 2_000,
    "n_steps": 20,
    "gamma": 0.99,
    "reset_interval": 0,
    "act_with_target": False,
    "weight_decay": 0.0,
    "policy_kwargs": {"features_extractor_class": SmallCNN},
}
"""Rainbow on images for 100,000 steps (van Hasselt et al. 2019, https://arxiv.org/abs/1906.05243, appendix E), with
epsilon-greedy play that ends early instead of noisy layers. A small network, which BBF's settings do not suit.

    Rainbow("CnnPolicy", VecFrameStack(env, 4), **DATA_EFFICIENT_RAINBOW)
"""
