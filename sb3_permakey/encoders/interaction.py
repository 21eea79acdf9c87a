"""The paper's message passing, for fully connected graphs of a fixed size; for all others see `graph_layers`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_permakey.encoders.message_passing import incoming_messages
from sb3_permakey.encoders.parts import mlp


class InteractionNetwork(nn.Module):
    """One round of messages (Battaglia et al. 2016; equation 4): edges, their sum at each node, nodes.

    The graph is fully connected, so that edges are all pairs of nodes in one tensor and their sum at a node is a sum
    over an axis (`incoming_messages`); torch-geometric's gather and scatter took 1.7 times as long. The first layer of
    f_e([v_i, v_j, e_ij]) is a sum of three products; those with v_i and v_j are computed once for each node instead of
    once for each edge. `InteractionConv` gives the same for any graph, with parameters of the same names.

    :param units: width of nodes and edges
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.update_edges = mlp(3 * units, units)
        self.update_nodes = mlp(2 * units, units)

    def forward(self, nodes: Tensor, edge: Tensor) -> Tensor:
        """Updated nodes.

        :param nodes: (B, K, units)
        :param edge: (1, units), the value of all edges
        :return: (B, K, units)
        """
        first, _, second, _ = self.update_edges
        assert isinstance(first, nn.Linear)
        of_receiver, of_sender, of_edge = first.weight.chunk(3, dim=1)
        receivers = F.linear(nodes, of_receiver, first.bias) + F.linear(edge, of_edge)
        senders = F.linear(nodes, of_sender)
        assert isinstance(second, nn.Linear)
        incoming = incoming_messages(receivers, senders, second.weight, second.bias)
        return self.update_nodes(torch.cat([nodes, incoming], dim=-1))
