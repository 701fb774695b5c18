"""Adapters onto a hub: a stand-in takes what huggingface_hub's own client uploads."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.encoders.hub_stand_in import COMMIT
from tests.training.conftest import tiny_config
from ttd.errors import InputError
from ttd.training.export import FILES, check_hub, push_to_hub
from ttd.training.trainer import train

REPO = "someone/adapter"


class Hub(ThreadingHTTPServer):
    """Keeps what it is sent; `refuses` is a status for everything."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.created: list[dict[str, object]] = []
        self.refuses = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({"name": "someone", "type": "user", "sha": COMMIT, "siblings": []})

    def do_POST(self) -> None:
        body = self._body()
        if self.path.endswith("/repos/create"):
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.url}/{REPO}"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._answer({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._answer({"commitUrl": f"{self.server.url}/{REPO}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._answer({})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, content: object) -> None:
        self.server.tokens.add(self.headers.get("Authorization"))
        text = json.dumps(content).encode()
        self.send_response(self.server.refuses or 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def run(base: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "adapter"
    return train(tiny_config(base, shards, "optimiser.steps=1"), out, quiet=True).folder


def test_the_adapter_and_its_card_are_uploaded_and_nothing_else(hub: Hub, run: Path) -> None:
    check_hub(REPO)
    assert push_to_hub(run, REPO, private=True).startswith(hub.url)
    assert set(hub.files) == set(FILES)
    for name, content in hub.files.items():
        assert content == (run / name).read_bytes()
    assert f"adapter='{REPO}'" in hub.files["README.md"].decode()
    assert "library_name: peft" in hub.files["README.md"].decode()
    assert hub.tokens == {"Bearer hf_secret"}
    assert hub.created[0]["name"] == "adapter"
    assert "private" in json.dumps(hub.created[0])
    assert "hf_secret" not in "".join(path.read_text() for path in run.glob("*.json"))


def test_a_wrong_token(hub: Hub, run: Path) -> None:
    hub.refuses = 401
    with pytest.raises(InputError, match="does not accept this token"):
        check_hub(REPO)
    with pytest.raises(InputError, match=f"the adapter is in {run}"):
        push_to_hub(run, REPO)


def test_nobody_is_logged_in(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(InputError, match="HF_TOKEN"):
        check_hub(REPO)


def test_offline(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(InputError, match="cannot be reached"):
        check_hub(REPO)


@pytest.mark.parametrize("repo", ["no spaces/please", "a/b/c", ""])
def test_a_wrong_name(repo: str) -> None:
    with pytest.raises(InputError, match="user/name"):
        check_hub(repo)


def test_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished adapter"):
        push_to_hub(tmp_path, REPO)
