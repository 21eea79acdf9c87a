"""Old place of `sb3_permakey.envs.keypoint_space`, which agents' files of the first version name."""

from sb3_permakey.envs.keypoint_space import KeypointSpace

__all__ = ["KeypointSpace"]
