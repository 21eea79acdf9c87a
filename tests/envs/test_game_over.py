import numpy as np
import pytest

from sb3_permakey import make_atari_env
from sb3_permakey.envs.game_over import OVER

LIVES_IN_RESERVE, BLOCKS, TEMPERATURE, STATE = 76, 77, 101, 113
"""Bytes of Frostbite's RAM."""
WHOLE_IGLOO = 15


def frostbite(training=False, **ram):
    """A game that has just begun, some bytes of whose RAM are set, and its emulator."""
    env = make_atari_env("ALE/Frostbite-v5", training=training)
    env.reset(seed=0)
    ale = env.unwrapped.ale
    env.step(0)
    for name, value in ram.items():
        ale.setRAM({"lives": LIVES_IN_RESERVE, "temperature": TEMPERATURE, "blocks": BLOCKS}[name], value)
    return env, ale


@pytest.mark.parametrize("training", [True, False])
def test_a_game_frozen_on_its_last_life_is_over(training):
    env, ale = frostbite(training, lives=0, temperature=3)
    info, steps = {}, 0
    while "episode" not in info and steps < 100:
        assert ale.getRAM()[TEMPERATURE] > 0
        _, _, terminated, truncated, info = env.step(0)
        steps += 1
        if terminated and ale.getRAM()[TEMPERATURE] > 0:  # the lives that are set count as lost ones
            assert training
            env.reset()
    assert (terminated, truncated, info["lives"], ale.getRAM()[TEMPERATURE]) == (True, False, 0, 0)
    env.reset()
    assert ale.lives() == 4
    assert ale.getRAM()[TEMPERATURE] == 0x45


def test_a_game_frozen_on_an_earlier_life_goes_on_with_the_next():
    env, ale = frostbite(lives=1, temperature=1)
    ends = [env.step(0)[2] for _ in range(120)]
    assert not any(ends)
    assert ale.lives() == 1
    assert ale.getRAM()[TEMPERATURE] > 0x30


def test_the_igloo_counts_the_temperature_down_and_the_last_life_goes_on():
    env, ale = frostbite(lives=0, blocks=WHOLE_IGLOO)
    actions = [env.unwrapped.get_action_meanings().index(name) for name in ("RIGHT", "UP")]
    lowest, score = 0x45, 0.0
    for step in range(160):
        _, reward, terminated, _, _ = env.step(actions[step % 2] if ale.getRAM()[STATE] == 0 else 0)
        lowest, score = min(lowest, ale.getRAM()[TEMPERATURE]), score + reward
        assert not terminated
    assert lowest == 0
    assert score > 500
    assert ale.getRAM()[TEMPERATURE] > 0x40


def test_games_that_end_by_themselves_are_the_same(monkeypatch):
    def lengths_and_scores():
        found = []
        for seed in range(3):
            env, random = make_atari_env("Frostbite", training=False), np.random.default_rng(seed)
            env.reset(seed=seed)
            over, rewards = False, []
            while not over:
                _, reward, terminated, truncated, _ = env.step(random.integers(env.action_space.n))
                rewards.append(reward)
                over = terminated or truncated
            found.append((rewards, terminated))
        return found

    found = lengths_and_scores()
    assert all(terminated and sum(rewards) > 0 for rewards, terminated in found)
    monkeypatch.delitem(OVER, "Frostbite")
    assert found == lengths_and_scores()
