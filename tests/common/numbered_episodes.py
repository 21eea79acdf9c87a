"""Episodes whose observations are numbers, so that a window shows where it comes from."""

import numpy as np
from gymnasium import spaces

BOX = spaces.Box(-np.inf, np.inf, (1,), np.float64)
ACTIONS = spaces.Discrete(1000)
EPISODE = 1000
"""The observations of an episode are numbered EPISODE * its number + step."""


class NumberedEpisodes:
    """Writes episodes of given lengths into a buffer, and remembers every step as {observation: facts}.

    An observation is the number of its episode times EPISODE plus the step in it, the reward is the observation + 0.5,
    the action is the step. Every second episode of an environment ends by a time limit.
    """

    def __init__(self, buffer, lengths):
        self.buffer = buffer
        self.lengths = [list(env_lengths) for env_lengths in lengths]
        self.episode = np.arange(buffer.n_envs) * 100
        self.step = np.zeros(buffer.n_envs, dtype=int)
        self.written = [[] for _ in range(buffer.n_envs)]
        self.ends = {}

    def number(self, steps):
        return (self.episode * EPISODE + steps).astype(float)

    def as_obs(self, numbers):
        return numbers[:, None]

    def write(self, n_steps, **given):
        for _ in range(n_steps):
            obs, next_obs = self.number(self.step), self.number(self.step + 1)
            done = np.array([self.step[e] + 1 == self.lengths[e][0] for e in range(self.buffer.n_envs)])
            timed_out = done & (self.episode % 2 == 1)
            self.buffer.add(
                self.as_obs(obs),
                self.as_obs(next_obs),
                self.step.copy(),
                obs + 0.5,
                done,
                [{"TimeLimit.truncated": bool(flag)} for flag in timed_out],
                **given,
            )
            for e in range(self.buffer.n_envs):
                self.written[e].append(obs[e])
                if done[e]:
                    self.ends[next_obs[e]] = "time limit" if timed_out[e] else "true end"
                    self.lengths[e].append(self.lengths[e].pop(0))
            self.episode = np.where(done, self.episode + 1, self.episode)
            self.step = np.where(done, 0, self.step + 1)
        return self


def check_windows(samples, ends, sequence_length, newest):
    """Every window counts up by one from state to state, stays in one episode, and tells its end right."""
    obs = samples.observations.squeeze(-1).cpu().numpy()
    for b in range(obs.shape[1]):
        acted = samples.acted[:, b].cpu().numpy()
        n_acted = int(acted.sum())
        assert n_acted >= 1
        assert acted[:n_acted].all(), "steps come first, padding last"
        states = obs[:, b]
        np.testing.assert_array_equal(states[: n_acted + 1], states[0] + np.arange(len(states))[: n_acted + 1])
        assert len(set(states // EPISODE)) == 1
        np.testing.assert_array_equal(samples.rewards[:n_acted, b].cpu().numpy(), np.float32(states[:n_acted] + 0.5))
        np.testing.assert_array_equal(samples.actions[:n_acted, b].cpu().numpy(), states[:n_acted] % EPISODE)
        np.testing.assert_array_equal(samples.mask[:, b].cpu().numpy(), acted[:sequence_length])
        terminated = samples.terminated[:, b].cpu().numpy()
        if n_acted < len(states):
            last = states[n_acted]
            assert (states[n_acted:] == last).all(), "the last state is the padding"
            assert last in ends or last in newest
            assert terminated[n_acted - 1] == (ends.get(last) == "true end")
            assert not terminated[: n_acted - 1].any()
            assert not terminated[n_acted:].any()
        else:
            assert terminated.sum() == (ends.get(states[-1] + 1) == "true end")
