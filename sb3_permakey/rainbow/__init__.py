"""Rainbow: the agent and its policies."""

from sb3_permakey.rainbow.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, PermaKeyPolicy
from sb3_permakey.rainbow.rainbow import Rainbow

__all__ = ["CnnPolicy", "MlpPolicy", "MultiInputPolicy", "PermaKeyPolicy", "Rainbow"]
