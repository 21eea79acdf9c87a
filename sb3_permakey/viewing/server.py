"""The local page: it hands what the browser sends to sessions, and looks back. All else is in its neighbours.

A page that anybody on the web has open must not be able to send to this one, which opens files and loads code by name:
requests are answered for the host names that were asked for alone, and only JSON is taken, which browsers send to other
hosts after asking, and nobody answers there.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import traceback
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sb3_permakey.viewing.pictures import Recording
from sb3_permakey.viewing.protocol import as_json, display_of, settings_of
from sb3_permakey.viewing.session import ViewSession

PAGE = Path(__file__).parent / "page"
MOST_OPEN = 4
"""Sessions of pages that may have been closed; of more, the one that was longest idle is closed."""
EVERYWHERE = ("0.0.0.0", "::")
HEADERS = {
    # The page can load nothing from elsewhere, whatever it is told.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:",
    "Cache-Control": "no-store",
}


class Opened:
    """A session and its recording."""

    def __init__(self, session: ViewSession) -> None:
        self.session = session
        self.recording = Recording()
        self.records = False


class Desk:
    """Answers the page, one request at a time: each takes a whole processor anyway."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.opened: OrderedDict[str, Opened] = OrderedDict()
        self.answers: dict[str, Callable[[Opened, dict[str, Any]], None]] = {
            "step": self._step,
            "reset": self._reset,
            "draw": lambda opened, form: None,
            "record": self._record,
        }

    def open(self, form: dict[str, Any]) -> dict[str, Any]:
        """Open a session; its "id" is asked for from then on."""
        with self.lock:
            session = ViewSession(settings_of(form))
            self._close(form.get("replaces"))
            while len(self.opened) >= MOST_OPEN:
                self._close(next(iter(self.opened)))
            name = uuid4().hex
            self.opened[name] = Opened(session)
            look = self._look(self.opened[name], form)
            return {"id": name, "notes": session.notes, "actions": session.action_names, **look}

    def answer(self, what: str, form: dict[str, Any]) -> dict[str, Any]:
        """Do one of `answers`; what is seen then."""
        with self.lock:
            opened = self._of(form)
            self.answers[what](opened, form)
            return self._look(opened, form)

    def gif(self, form: dict[str, Any]) -> bytes:
        """The recording's file."""
        with self.lock:
            return self._of(form).recording.gif()

    def _of(self, form: dict[str, Any]) -> Opened:
        name = str(form.get("id"))
        if name not in self.opened:
            raise ValueError("this page's session has been closed: open it again")
        self.opened.move_to_end(name)
        return self.opened[name]

    def _close(self, name: Any) -> None:
        if name in self.opened:
            self.opened.pop(name).session.close()

    def _step(self, opened: Opened, form: dict[str, Any]) -> None:
        opened.session.step(form.get("player", "random"), [str(key) for key in form.get("keys") or ()])
        if opened.records:
            opened.recording.add(opened.session.look, display_of(form))
            opened.records = not opened.recording.is_full

    def _reset(self, opened: Opened, form: dict[str, Any]) -> None:
        opened.session.reset()

    def _record(self, opened: Opened, form: dict[str, Any]) -> None:
        opened.records = form.get("on") is True
        if opened.records:
            opened.recording = Recording()
            opened.recording.add(opened.session.look, display_of(form))

    def _look(self, opened: Opened, form: dict[str, Any]) -> dict[str, Any]:
        recording = {"records": opened.records, "recorded": len(opened.recording.pictures)}
        return {**as_json(opened.session, display_of(form)), **recording}


def make_app(choices: dict[str, Any], hosts: list[str]) -> Starlette:
    """The web application.

    :param choices: what the page offers, as `sb3_permakey.commands.view` makes it
    :param hosts: names under which it may be asked for; ["*"]: any
    """
    desk = Desk()

    async def ask(request: Request) -> Response:
        what = request.path_params["what"]
        try:
            form = await _form(request)
            if what == "open":
                return JSONResponse(await run_in_threadpool(desk.open, form))
            if what == "gif":
                content = await run_in_threadpool(desk.gif, form)
                return Response(content, media_type="image/gif")
            if what not in desk.answers:
                return JSONResponse({"error": f"nothing is called {what!r} here"}, status_code=404)
            return JSONResponse(await run_in_threadpool(desk.answer, what, form))
        except (ValueError, OSError, ImportError) as error:
            return JSONResponse({"error": " ".join(str(error).split())}, status_code=400)
        except Exception as error:
            # Of an environment or an encoder of the user's own, or of this package.
            traceback.print_exc(file=sys.stderr)
            sentence = f"{type(error).__name__}: {' '.join(str(error).split())}; the terminal shows where"
            return JSONResponse({"error": sentence}, status_code=500)

    async def choose(request: Request) -> Response:
        return JSONResponse(choices, headers=HEADERS)

    return Starlette(
        routes=[
            Route("/choices", choose),
            Route("/ask/{what}", ask, methods=["POST"]),
            Mount("/", _Page(directory=PAGE, html=True)),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
    )


class _Page(StaticFiles):
    """The page's files."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(HEADERS)
        return response


async def _form(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ValueError("only application/json is taken")
    form = await request.json()
    if not isinstance(form, dict):
        raise ValueError(f"an object of JSON is taken, not {form!r}")
    return form


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    :param host: name or address
    :param port: 0 for any that is free
    :raises OSError: when another program listens there, or this machine has no such address
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        advice = "; give another --port" if taken else ""
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise OSError(f"could not listen on {host}:{port}: {reason}{advice}") from error


def allowed_hosts(host: str) -> list[str]:
    """The names under which a page that listens at `host` may be asked for."""
    return ["*"] if host in EVERYWHERE else [host, "localhost", "127.0.0.1"]


def make_server(app: Starlette) -> uvicorn.Server:
    """What answers, on `run(sockets=[...])`, for the application."""
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none"))


def serve(app: Starlette, listener: socket.socket) -> None:
    """Answer until Ctrl-C."""
    make_server(app).run(sockets=[listener])
