"""Training an agent on a game: presets, the run and its folder, validation."""
