"""Arguments of published recurrent Q-learning agents."""

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
    "target_update_interval": 2500,
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
