"""Old place of `sb3_permakey.encoders`, which files of agents with an encoder by its class name."""

from sb3_permakey.encoders import KeypointCNN, KeypointGNN, KeypointPairs

__all__ = ["KeypointCNN", "KeypointGNN", "KeypointPairs"]
