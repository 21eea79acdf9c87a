"""Who plays: saved agents, players, episodes that are collected, whole games that are counted."""
