"""A visitor of the page without a browser: raw requests, uploads, questions; and the page as a process of its own."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ttd.app.security import API, JOIN, UPLOAD


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def ask(port: int, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """The path goes out exactly as it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def multipart(name: str, content: bytes, field: str = "files") -> bytes:
    """The body of an upload with the boundary "edge"."""
    head = (
        f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + content + b"\r\n--edge--\r\n"


def upload(port: int, name: str, content: bytes, **headers: str) -> tuple[int, bytes]:
    kind = "multipart/form-data; boundary=edge"
    return ask(port, UPLOAD, "POST", multipart(name, content), Content_Type=kind, **headers)


def broken_off(port: int, content: bytes, announced: int) -> None:
    """An upload that announces more bytes than it sends, and then closes its connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=600) as one:
        head = (
            f"POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {announced}\r\n"
            "Content-Type: multipart/form-data; boundary=edge\r\n\r\n"
        )
        one.sendall(head.encode() + content)


class Visitor:
    """One session of the page on a port of this machine."""

    def __init__(self, port: int, session: str) -> None:
        self.port, self.session = port, session
        config = json.loads(ask(port, "/config")[1])
        self._ids = {one["props"].get("elem_id"): one["id"] for one in config["components"]}
        self._events = {
            (target[0], target[1]): number["id"]
            for number in config["dependencies"]
            for target in number["targets"]
            if target[0] is not None
        }

    def join(self, element: str, event: str, data: list[Any], event_data: Any = None) -> tuple[int, bytes]:
        """Asks a question; the answer waits until `answers` reads it."""
        number = self._events[self._ids[element], event]
        body = {"data": data, "event_data": event_data, "fn_index": number, "session_hash": self.session}
        return ask(self.port, JOIN, "POST", json.dumps(body).encode(), Content_Type="application/json")

    def answers(self) -> Iterator[list[Any]]:
        """The data of every answer that waits, until the server closes the stream."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("GET", f"{API}/queue/data?session_hash={self.session}")
        for line in connection.getresponse():
            if not line.startswith(b"data: "):
                continue
            message = json.loads(line[6:])
            if message["msg"] == "process_completed":
                yield message["output"].get("data", [])
            if message["msg"] == "close_stream":
                return

    def show(self, path: str, caption: str = "a dog", **fields: Any) -> list[Any]:
        """The answer to the Show button about an uploaded file."""
        self.ask(path, caption, **fields)
        return next(iter(self.answers()))

    def ask(self, path: str, caption: str = "a dog", **fields: Any) -> None:
        """Presses the Show button, and leaves the answer to `answers`."""
        data = {
            "path": {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": Path(path).name},
            "caption": caption, "tags": "", "model": "mini", "adapter": "none", "method": "the model's own",
            "protocol": "default", "refine": "as the protocol", "threshold": 0.5, "score": "s_pixel",
            "stop_words": False, "background": True,
        }  # fmt: skip
        status, said = self.join("ttd-go", "click", list({**data, **fields}.values()))
        assert status == 200, said

    def act(self, **action: Any) -> list[Any]:
        """The Annotate tab's answer to an action."""
        status, said = self.join("ttd-annotate", "submit", [], action)
        assert status == 200, said
        return next(iter(self.answers()))


class PageProcess:
    """`ttd app` as a process, whose memory and folder can be watched."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}/"
        self._command = [sys.executable, "-m", "ttd", "app", "--port", str(self.port), *options]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.address in self.process.stdout.readline()

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Ends it as Ctrl-C does, so that its folder goes."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()
            self.process = None

    def memory(self, what: str = "VmRSS") -> int:
        """Bytes of memory now (VmRSS) or at most so far (VmHWM); Linux."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{what}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


@contextmanager
def running(*options: str) -> Iterator[PageProcess]:
    """The page as a process while the block runs."""
    one = PageProcess(*options)
    one.start()
    try:
        yield one
    finally:
        one.stop()


def stored(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
