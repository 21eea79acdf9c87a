"""A page that is served in a thread, and asked as a browser asks it."""

import json
import threading
import urllib.error
import urllib.request

from sb3_permakey.commands.view import ViewConfig, choices
from sb3_permakey.viewing import server


class RunningPage:
    """Answers at `address` until it is closed."""

    def __init__(self, config: ViewConfig) -> None:
        self.listener = server.listening_socket("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.app = server.make_app(choices(config), server.allowed_hosts("127.0.0.1"))
        self.server = server.make_server(self.app)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=20)
        self.listener.close()

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        return self._answer(urllib.request.Request(self.address + path, headers=headers))

    def post(self, what: str, kind: str = "application/json", **form) -> tuple[int, bytes]:
        request = urllib.request.Request(self.address + "ask/" + what, json.dumps(form).encode())
        request.add_header("Content-Type", kind)
        return self._answer(request)

    def ask(self, what: str, **form) -> dict:
        status, content = self.post(what, **form)
        return {"status": status, **json.loads(content)}

    def _answer(self, request: urllib.request.Request) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
