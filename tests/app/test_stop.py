"""The page is stopped while it answers."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the extra app is not installed")

from tests.app.visitor import PageProcess, Visitor, ask, upload
from ttd.app.security import API, HEALTH, HEARTBEAT, JOIN

pytestmark = pytest.mark.slow
QUESTIONS = 6


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PageProcess:
    """A page whose temporary folder lies in `tmp_path`, and six questions that it was just asked."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return PageProcess()


def asked(one: PageProcess, image: str) -> http.client.HTTPResponse:
    """Asks all questions and opens the stream of their answers."""
    path = json.loads(upload(one.port, "scene.png", Path(image).read_bytes())[1])[0]
    visitor = Visitor(one.port, "somebody")
    for number in range(QUESTIONS):
        visitor.ask(path, caption=f"a lion and couch number {number}")
    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=120)
    connection.request("GET", f"{API}/queue/data?session_hash=somebody")
    return connection.getresponse()


def test_sigterm_lets_running_answers_end_and_takes_no_new_ones(one: PageProcess, image: str, tmp_path: Path) -> None:
    one.start()
    process = one.process
    assert process is not None
    try:
        # A page that stays open, as a browser's does: nobody waits for its end.
        beat = http.client.HTTPConnection("127.0.0.1", one.port, timeout=120)
        beat.request("GET", f"{HEARTBEAT}somebody")
        beat.getresponse()
        stream = asked(one, image)
        process.send_signal(signal.SIGTERM)
        answers, refused = [], []
        for line in stream:
            if not line.startswith(b"data: "):
                continue
            message = json.loads(line[6:])
            if message["msg"] == "process_completed":
                if not answers:
                    refused = [ask(one.port, HEALTH)[0], ask(one.port, JOIN, "POST", b"{}")[0]]
                answers.append(message["output"]["data"])
            if message["msg"] == "close_stream":
                break
        assert len(answers) == QUESTIONS
        assert all("Answered in" in parts[0] for parts in answers)
        assert refused == [503, 503]
        assert process.wait(timeout=60) == 143
    finally:
        one.kill()
    assert list(tmp_path.glob("ttd-app-*")) == []


def test_a_second_signal_ends_it_at_once(one: PageProcess, image: str, tmp_path: Path) -> None:
    one.start()
    process = one.process
    assert process is not None
    try:
        asked(one, image)
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            threading.Event().wait(0.3)
        assert process.wait(timeout=60) == 143
    finally:
        one.kill()
    assert list(tmp_path.glob("ttd-app-*")) == []
