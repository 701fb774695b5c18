"""A local server with OpenAI's chat interface that names the words of the caption that it knows.

python -m tests.taggers.stub_server PORT        answers until it is killed
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KNOWN = {"dog", "cat", "grass", "sky", "man", "woman", "table", "street", "train", "red", "green", "blue", "image"}

# A text (the model's answer), (status, body), (status, body, headers), or a function of the handler.
Reply = Any


def truthful(caption: str) -> str:
    """The known words of a caption, as a JSON list."""
    return json.dumps([word for word in caption.lower().split() if word in KNOWN])


class Stub(ThreadingHTTPServer):
    """Answers `reply(caption, attempt)`; remembers what it was asked.

    Attributes:
        asked: the captions, in order.
        requests: path, headers and body of every request.
    """

    daemon_threads = True

    def __init__(self, reply: Callable[[str, int], Reply] | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.reply = reply or (lambda caption, attempt: truthful(caption))
        self.asked: list[str] = []
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> Stub:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        caption = body["messages"][-1]["content"].rpartition("Caption:")[2].strip()
        with self.server.lock:
            attempt = self.server.asked.count(caption)
            self.server.asked.append(caption)
            self.server.requests.append(
                (self.path, {name.title(): value for name, value in self.headers.items()}, body)
            )
        reply = self.server.reply(caption, attempt)
        if callable(reply):
            with suppress(OSError):
                reply(self)
            return
        if isinstance(reply, str):
            reply = (200, json.dumps({"choices": [{"message": {"role": "assistant", "content": reply}}]}))
        status, text, headers = (*reply, {})[:3]
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json" if text.startswith("{") else "text/html")
        if status != 200:
            self.send_header("Retry-After-Ms", "1")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):  # the asker may be gone
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


if __name__ == "__main__":
    Stub(port=int(sys.argv[1])).serve_forever()
