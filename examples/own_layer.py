"""A message-passing layer of your own between keypoints."""

import torch
from torch_geometric.nn import MessagePassing

from sb3_permakey import PermaKeyObservation, RecurrentDQN, make_atari_env


class Springs(MessagePassing):
    """Each keypoint pulls at those that hear it, the less the farther it is."""

    def __init__(self, in_channels, out_channels, edge_dim):
        super().__init__(aggr="mean")
        self.pull, self.strength = torch.nn.Linear(in_channels, out_channels), torch.nn.Linear(edge_dim, 1)

    def forward(self, x, edge_index, edge_attr):
        """What pulls at each keypoint."""
        return self.propagate(edge_index, x=self.pull(x), strength=self.strength(edge_attr).sigmoid())

    def message(self, x_j, strength):
        """What the sender of each edge gives."""
        return strength * x_j


env = PermaKeyObservation(make_atari_env("MsPacman", seed=0), "mspacman", readout="peaks")
encoder = {"conv": Springs, "num_layers": 2, "graph": "knn", "k": 3, "aggregate": "pool"}
model = RecurrentDQN("PermaKeyPolicy", env, policy_kwargs={"features_extractor_kwargs": encoder}, learning_starts=100)
model.learn(300)
print(f"{model.num_timesteps} steps with {model.q_net.features_extractor.process.layer}")
