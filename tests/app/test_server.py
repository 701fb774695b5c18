"""The real server, asked over raw sockets: gradio's own routes behind our guard."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("gradio", reason="the extra app is not installed")

from tests.app.conftest import new_pool
from tests.app.visitor import ask, free_port, upload
from ttd.app.access import Access
from ttd.app.security import API, FILE
from ttd.app.server import page
from ttd.errors import InputError

USER, PASSWORD = "anna", "correct horse"


@pytest.fixture(scope="module")
def port(adapter: Path) -> Iterator[int]:
    number = free_port()
    with page(new_pool(adapter), Access("127.0.0.1", number)):
        yield number


def test_the_page_is_there_and_names_no_other_server_to_load_from(port: int) -> None:
    status, html = ask(port, "/")
    assert status == 200
    assert b"ttd-viewer" in html
    assert b"googleapis" not in html
    config = json.loads(ask(port, "/config")[1])
    assert config["analytics_enabled"] is False
    assert not config.get("is_space")
    assert all(d["api_visibility"] == "private" for d in config["dependencies"])
    assert "googleapis" not in json.dumps(config)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "../../../../../etc/passwd",
        "..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "{sent}/../../../../../../../etc/passwd",
        "{sent}%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "{code}",
        "/proc/self/environ",
        "/dev/zero",
        "{link}",
        "http://127.0.0.1:{port}/config",
        "/ETC/passwd",
        "",
    ],
)
def test_no_file_outside_its_folder(port: int, name: str, tmp_path: Path) -> None:
    status, answer = upload(port, "x.txt", b"sent")
    assert status == 200
    sent = Path(json.loads(answer)[0])
    link = sent.parent / "link.txt"
    if not link.is_symlink():
        link.symlink_to("/etc/passwd")
    assert ask(port, FILE + str(sent)) == (200, b"sent")
    wanted = name.format(sent=sent.parent, code=__file__, link=link, port=port)
    for prefix in (FILE, f"{API}/file/", "/file=", "/assets/", "/static/", "/svelte/", "/theme.css/"):
        status, answer = ask(port, prefix + wanted)
        assert status in (307, 400, 403, 404), (prefix, wanted)
        assert b"root:" not in answer
        assert b"PATH=" not in answer


def test_uploads_stay_in_the_folder_and_are_handed_out_as_attachments(port: int) -> None:
    for name in ("../../evil.txt", "/etc/evil", "..%2fevil", "evil.html", "evil.svg"):
        status, answer = upload(port, name, b"<script>alert(1)</script>")
        assert status == 200
        path = Path(json.loads(answer)[0])
        assert path.resolve().is_relative_to(Path(os.environ["GRADIO_TEMP_DIR"]).resolve())
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        connection.request("GET", quote(f"{FILE}{path}", safe="/="))
        got = connection.getresponse()
        assert got.status == 200
        assert got.headers["Content-Type"] == "text/plain; charset=utf-8" or got.headers[
            "Content-Disposition"
        ].startswith("attachment")
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        got.read()


def test_what_is_too_large_is_refused(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    status, answer = upload(port, "big.png", b"\0" * (26 << 20))
    assert status == 413
    assert b"25 MB" in answer


def test_the_programming_interface_is_off(port: int) -> None:
    for path in (f"{API}/info", f"{API}/openapi.json", "/docs", "/openapi.json", "/monitoring", f"{API}/queue/status"):
        assert ask(port, path)[0] == 404, path
    for path in (f"{API}/call/show", f"{API}/api/predict", f"{API}/run/0"):
        assert ask(port, path, "POST", b"{}", Content_Type="application/json")[0] == 404, path


def test_a_name_that_was_pointed_here_is_refused(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("GET", "/", headers={"Host": "rebound.example"})
    assert connection.getresponse().status == 403


def test_the_folder_goes_with_the_page(adapter: Path) -> None:
    with page(new_pool(adapter), Access("127.0.0.1", free_port())):
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert list(folder.rglob("*.png"))
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_with_a_user_nothing_is_there_without_the_password(adapter: Path) -> None:
    number = free_port()
    with page(new_pool(adapter), Access("127.0.0.1", number, USER, PASSWORD)):
        folder = os.environ["GRADIO_TEMP_DIR"]
        example = next(Path(folder).rglob("*.png"))
        for path in ("/config", FILE + str(example), f"{API}/queue/data?session_hash=x"):
            assert ask(number, path)[0] == 401, path
        assert upload(number, "x.png", b"x")[0] == 401
        assert b"ttd-viewer" not in ask(number, "/")[1]
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        for user, password in ((USER, "wrong"), (USER, ""), ("", ""), ("eva", PASSWORD)):
            body = f"username={user}&password={quote(password)}".encode()
            assert ask(number, "/login", "POST", body, **form)[0] in (400, 422)
        connection = http.client.HTTPConnection("127.0.0.1", number, timeout=600)
        connection.request(
            "POST",
            "/login",
            f"username={USER}&password={quote(PASSWORD)}",
            {"Content-Type": "application/x-www-form-urlencoded"},
        )
        answer = connection.getresponse()
        assert answer.status == 200
        cookies = [value.split(";")[0] for name, value in answer.getheaders() if name.lower() == "set-cookie"]
        status, config = ask(number, "/config", Cookie="; ".join(cookies))
        assert status == 200
        assert b"ttd-viewer" in config


def test_a_taken_port_is_a_sentence(port: int, adapter: Path) -> None:
    with pytest.raises(InputError, match="taken"), page(new_pool(adapter), Access("127.0.0.1", port)):
        pass
    elsewhere = Access("203.0.113.1", port, USER, PASSWORD)
    with pytest.raises(InputError, match="cannot be used here"), page(new_pool(adapter), elsewhere):
        pass
