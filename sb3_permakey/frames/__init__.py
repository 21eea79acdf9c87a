"""Recorded frames: the store that holds them and the reader that gives batches of them."""
