"""RL Zoo's train with the recurrent agents: the same arguments, also -optimize."""

import recurrent_agents
from rl_zoo3.train import train

if __name__ == "__main__":
    recurrent_agents.prefer_our_hyperparameters()
    train()
