"""Whether an agent's environments are where the agent left them, or were stepped or reset by others."""

from __future__ import annotations

import copyreg
from typing import Any

from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

CALLS = "counted_calls"
"""Attribute of a watched environment: how often it was stepped or reset."""


class EnvironmentWatch:
    """Notices what others do with an agent's environments.

    An evaluation on them, say, leaves them in another episode than the agent's last observation is of, and nothing that
    they return tells so. The innermost environments are watched, so that it is noticed through whatever wrapper it
    comes: for that they get a class of their own, which counts the calls. Only environments of other processes that
    others reach without ``venv``, and classes that Python cannot extend, go unwatched.

    :param venv: the agent's environments
    """

    def __init__(self, venv: VecEnv) -> None:
        self.venv = venv
        # None of VecEnv's constructor is run at each step: it asks the environments' processes.
        self.stepped = _NotedSteps(venv, self)
        innermost = venv.unwrapped
        held = getattr(innermost, "envs", [])
        environments = [getattr(env, "unwrapped", env) for env in held] if isinstance(held, list | tuple) else []
        self._watched = [env for env in (innermost, *environments) if _count_calls(env)]
        self.note()

    @property
    def touched(self) -> bool:
        """Whether anybody stepped or reset the environments since `note`."""
        return self._calls() != self._noted

    def note(self) -> None:
        """The environments are where the agent left them."""
        self._noted = self._calls()

    def _calls(self) -> int:
        return sum(getattr(env, CALLS) for env in self._watched)


class _NotedSteps(VecEnvWrapper):
    """The agent's environments, whose steps are noted as its own."""

    def __init__(self, venv: VecEnv, watch: EnvironmentWatch) -> None:
        super().__init__(venv)
        self._watch = watch

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        result = self.venv.step_wait()
        self._watch.note()
        return result


def _count_calls(environment: Any) -> bool:
    """Let an environment count its calls in its attribute `CALLS`; whether that is possible."""
    kind: Any = type(environment)
    if "counts_calls" in vars(kind):
        return True

    def counting(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            setattr(self, CALLS, getattr(self, CALLS) + 1)
            return getattr(kind, name)(self, *args, **kwargs)

        return method

    def reduce(self: Any, protocol: Any) -> Any:
        # Copies and pickles are of the environment's own class, which can be imported.
        made_by, args, *rest = kind.__reduce_ex__(self, protocol)
        # pickle wants the very class of the object from copyreg's function.
        made_by = _new if made_by is copyreg.__newobj__ else made_by  # type: ignore[attr-defined]
        return made_by, tuple(kind if arg is type(self) else arg for arg in args), *rest

    methods = {name: counting(name) for name in ("reset", "step_wait", "step") if hasattr(kind, name)}
    if isinstance(environment, VecEnv):
        del methods["step"]  # which calls step_wait
    try:
        setattr(environment, CALLS, 0)
        of_kind = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "counts_calls": True}
        environment.__class__ = type(kind.__name__, (kind,), {**of_kind, **methods, "__reduce_ex__": reduce})
    except (AttributeError, TypeError):
        return False
    return True


def _new(kind: type, *args: Any) -> Any:
    """An object of a class, as pickle makes it before its state."""
    return kind.__new__(kind, *args)
