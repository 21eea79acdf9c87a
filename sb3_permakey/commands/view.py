"""`sb3-permakey view`: a local page on which play is seen with its keypoints, true objects and an agent's values."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from sb3_permakey.commands.output import say
from sb3_permakey.envs.atari import atari_games
from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.envs.named import NamedEnvironment
from sb3_permakey.extras import missing_package
from sb3_permakey.keypoints import READOUTS, shipped_checkpoints
from sb3_permakey.settings import NO_DEFAULT, require_range

FIRST_GAME = "MsPacman"
"""Where neither a game nor an environment of one's own is named."""
MOST_PORT = 65_535


@dataclass(frozen=True)
class ViewConfig:
    """See play live in the browser, on a page of this machine's own that needs no network.

    All of this can be chosen on the page too.
    """

    game: Annotated[str | None, NO_DEFAULT] = None
    """Game, e.g. MsPacman."""
    env: Annotated[str | None, NO_DEFAULT] = None
    """Instead of a game your own environment, module:function, or an id of gymnasium's."""
    checkpoint: tuple[str, ...] = ()
    """One keypoint checkpoint, or two side by side: files or names that `sb3-permakey checkpoints` lists. Without: the
    game's own, peaks beside its teacher's PointNet, or the Transporter's where the teacher is still to be fetched."""
    agent: Annotated[Path | None, NO_DEFAULT] = None
    """A trained agent's file, e.g. best_model.zip."""
    host: str = "127.0.0.1"
    """Address to listen at. Whoever reaches it can open files and run code here: 0.0.0.0 lets all of the network in."""
    port: int = 7860
    """Port; 0: any that is free."""

    def __post_init__(self) -> None:
        if self.game is not None and self.env is not None:
            raise ValueError("give one of game, env, not game and env")
        require_range(0, 2, checkpoints=len(self.checkpoint))
        require_range(0, MOST_PORT, port=self.port)


def run(config: ViewConfig) -> None:
    """Show the page until Ctrl-C."""
    try:
        from sb3_permakey.viewing import server
    except ImportError as error:
        raise missing_package("the page needs starlette and uvicorn", "view") from error
    app = server.make_app(choices(config), server.allowed_hosts(config.host))
    with server.listening_socket(config.host, config.port) as listener:
        host = f"[{config.host}]" if ":" in config.host else config.host
        if config.host in server.EVERYWHERE:
            say("everybody on this machine's network can open files and run code by this page")
        say(f"http://{host}:{listener.getsockname()[1]}/ in a browser shows the page; Ctrl-C ends it")
        server.serve(app, listener)


def choices(config: ViewConfig) -> dict[str, Any]:
    """What the page offers to choose from, and what is chosen at first.

    :raises UnknownGameError: when there is no such game, with the nearest name
    """
    games: list[str] = []
    with suppress(ImportError):
        games = atari_games()
    game = config.game if config.env is None else None
    if games and config.env is None:
        game = NamedEnvironment(config.game or FIRST_GAME).name
    shipped = [
        {"name": one.name, "game": one.game, "method": one.method, "noise": one.noise}
        for one in shipped_checkpoints()
        if one.path.is_file()
    ]
    return {
        "games": games,
        "checkpoints": shipped,
        "readouts": list(READOUTS),
        "distractors": list(get_args(DistractorKind)),
        "first": {
            "game": game,
            "env": config.env,
            "checkpoints": list(config.checkpoint),
            "agent": None if config.agent is None else str(config.agent),
        },
    }
