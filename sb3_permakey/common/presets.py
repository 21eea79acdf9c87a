"""Arguments of recurrent Q-learning agents: a published one, and one for keypoints on Atari."""

from typing import Any

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
sooner, for peaks on Atari; chosen by the runs under "Settings tried" in benchmarks/results/atari100k.md.

    env = PermaKeyObservation(make_atari_env("MsPacman"), "mspacman", readout="peaks")
    RecurrentDQN("PermaKeyPolicy", env, **STRONG)
"""
