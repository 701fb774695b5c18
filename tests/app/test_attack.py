"""An attack on the real server: what strangers, storms and broken uploads reach, and what they leave behind.

Paths, hosts and origins: `test_security.py` (the guard) and `test_server.py` (gradio's own routes behind it).
"""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the extra app is not installed")

from tests.app.conftest import new_pool
from tests.app.visitor import PageProcess, Visitor, ask, broken_off, free_port, multipart, running, stored, upload
from ttd.app.access import Access, LoginDelays
from ttd.app.security import API, HEARTBEAT, UPLOAD
from ttd.app.server import page
from ttd.app.uploads import UploadFolder

MB = 1 << 20
USER, PASSWORD = "anna", "correct horse"
FORM = {"Content_Type": "application/x-www-form-urlencoded"}
PARTS = {"Content_Type": "multipart/form-data; boundary=edge"}


@pytest.fixture(scope="module")
def port(adapter: Path) -> Iterator[int]:
    with page(new_pool(adapter), Access("127.0.0.1", free_port())) as address:
        yield int(address.rstrip("/").rsplit(":", 1)[1])


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def log_in(port: int, password: str, user: str = USER, **headers: str) -> int:
    body = f"username={user}&password={quote(password)}".encode()
    return ask(port, "/login", "POST", body, **FORM, **headers)[0]


@pytest.fixture
def locked(adapter: Path, clock: Clock) -> Iterator[int]:
    delays = LoginDelays(lambda: clock.now, clock.sleep)
    with page(new_pool(adapter), Access("127.0.0.1", free_port(), USER, PASSWORD), delays=delays) as address:
        yield int(address.rstrip("/").rsplit(":", 1)[1])


def test_a_storm_of_passwords_takes_hours_whatever_address_it_names(locked: int, clock: Clock) -> None:
    for number in range(100):
        named = {"X_Forwarded_For": f"203.0.113.{number}", "Forwarded": f"for=203.0.113.{number}"}
        assert log_in(locked, f"guess number {number}", **named) == 400
    assert clock.now == 1 + 2 + 4 + 8 + 16 + 94 * 30
    assert log_in(locked, PASSWORD) == 200
    waited = clock.now
    assert log_in(locked, PASSWORD) == 200
    assert log_in(locked, "mistyped") == 400
    assert clock.now == waited


def test_behind_a_proxy_every_visitor_has_delays_of_his_own(adapter: Path, clock: Clock) -> None:
    delays = LoginDelays(lambda: clock.now, clock.sleep)
    access = Access("127.0.0.1", free_port(), USER, PASSWORD, root_path="https://example.org/ttd")
    with page(new_pool(adapter), access, delays=delays):
        for number in range(5):
            assert log_in(access.port, "wrong", X_Forwarded_For=f"203.0.113.{number}") == 400
        assert clock.now == 0
        # What the visitor wrote before the proxy's own part does not count.
        for number in range(3):
            assert log_in(access.port, "wrong", X_Forwarded_For=f"10.0.0.{number}, 203.0.113.9") == 400
        assert clock.now == 1 + 2
        # The page's own addresses are those that the proxy serves.
        status, html = ask(access.port, "/", Host="example.org")
        assert status == 200
        assert b"https://example.org/ttd" in html


def test_a_stranger_stops_nothing_sends_nothing_and_holds_nothing_open(locked: int) -> None:
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    before = stored(folder)
    body = json.dumps({"session_hash": "x", "fn_index": 0, "event_id": "x"}).encode()
    for path in (f"{API}/cancel", f"{API}/reset"):
        assert ask(locked, path, "POST", body, Content_Type="application/json")[0] == 401
    assert ask(locked, f"{HEARTBEAT}x")[0] == 401
    assert ask(locked, f"{API}/queue/data?session_hash=x")[0] == 401
    assert upload(locked, "x.png", b"\0" * MB)[0] == 401
    assert stored(folder) == before


def test_nothing_stays_of_uploads_that_are_refused_or_broken_off(port: int) -> None:
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    before = stored(folder)
    for _ in range(5):
        broken_off(port, multipart("x.png", b"\0" * MB)[:-20], 2 * MB)
    assert ask(port, UPLOAD, "POST", multipart("x.png", b"\0" * MB, field="other"), **PARTS)[0] == 200
    assert ask(port, UPLOAD, "POST", multipart("x.png", b"\0" * MB)[:-30], **PARTS)[0] != 404
    assert ask(port, UPLOAD, "POST", b"\0" * MB, **PARTS)[0] >= 400
    assert ask(port, UPLOAD, "POST", multipart("x.png", b"\0" * (26 * MB)), **PARTS)[0] == 413
    status, answer = upload(port, "whole.png", b"\1" * MB)
    assert status == 200
    assert stored(folder) == before + MB
    Path(json.loads(answer)[0]).unlink()


def test_accepted_uploads_have_a_limit_together_and_the_newest_are_there(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UploadFolder.__init__, "__defaults__", (5 * MB, 60.0, 2000))
    with page(new_pool(adapter), Access("127.0.0.1", free_port())) as address:
        port = int(address.rstrip("/").rsplit(":", 1)[1])
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        before = stored(folder)
        for number in range(12):
            status, answer = upload(port, f"{number}.png", bytes([number]) * MB)
            assert status == 200
            assert ask(port, f"{API}/file={json.loads(answer)[0]}")[0] == 200
            assert stored(folder) - before <= 5 * MB
        with ThreadPoolExecutor(8) as pool:
            storm = [pool.submit(upload, port, f"s{n}.png", bytes([100 + n]) * MB) for n in range(24)]
        assert {one.result()[0] for one in storm} <= {200, 503}
        assert stored(folder) - before <= 5 * MB


def photo(seed: int, side: int = 7000) -> bytes:
    """A JPEG of 49 megapixels."""
    values = np.random.default_rng(seed).integers(0, 256, (70, 70, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC).save(data, "JPEG", quality=80)
    return data.getvalue()


@pytest.mark.slow
def test_memory_stays_bounded_with_large_photos_and_many_visitors() -> None:
    """Twelve photos of 49 megapixels, then visitors who come and go and some who never read their answers."""
    with running() as one:
        start = one.memory()
        seen = Visitor(one.port, "photos")
        for number in range(12):
            path = json.loads(upload(one.port, f"{number}.jpg", photo(number))[1])[0]
            assert "Answered" in seen.show(path)[0]
        photos = one.memory("VmHWM") - start
        print(f"12 photos of 49 megapixels: {photos / MB:.0f} MB more at the most")
        small = json.loads(upload(one.port, "small.jpg", photo(1, 400))[1])[0]
        grown = _storm(one, small)
        print(f"200 visitors: {grown / MB:.0f} MB more")
        assert photos < 600 * MB
        assert grown < 300 * MB


def _storm(one: PageProcess, path: str) -> int:
    """Bytes that the second half of 200 visitors adds to what the first half left."""
    marks = []
    for half in range(2):
        for number in range(100):
            assert "Answered" in Visitor(one.port, f"visitor-{half}-{number}").show(path)[0]
        marks.append(one.memory())
    return marks[1] - marks[0]
