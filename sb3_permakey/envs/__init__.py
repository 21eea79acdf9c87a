"""Environments: Atari games, what is drawn on them and done to them, and the wrappers that show keypoints."""
