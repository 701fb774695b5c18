"""The guard before a server that says what reached it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ttd.app.access import CLIENT
from ttd.app.asgi import Heartbeats
from ttd.app.security import API, BODY_BYTES, FILE, HEARTBEAT, JOIN, LOGIN_CHECK, UPLOAD, Guard
from ttd.app.uploads import UploadFolder

LIMIT = 1 << 20
HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Referrer-Policy", b"origin")]})
    await send({"type": "http.response.body", "body": str(len(body)).encode()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    served = tmp_path / "served"
    served.mkdir()
    (served / "a.png").write_bytes(b"x")
    (tmp_path / "secret.txt").write_bytes(b"x")
    (served / "link.txt").symlink_to(tmp_path / "secret.txt")
    return served


@pytest.fixture
def client(folder: Path) -> TestClient:
    guard = Guard(echo, UploadFolder(folder), HOSTS, LIMIT)
    return TestClient(guard, base_url="http://localhost:7860")


def test_the_page_itself_passes_with_its_policy(client: TestClient, folder: Path) -> None:
    for path in ("/", "/config", "/assets/index.js", f"{API}/queue/data?session_hash=x", f"{FILE}{folder}/a.png"):
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers.get_list("referrer-policy") == ["no-referrer"]


def test_health_is_asked_by_any_name_and_says_nothing_else(folder: Path) -> None:
    asker = TestClient(Guard(echo, UploadFolder(folder), HOSTS, LIMIT), base_url="http://10.1.2.3:7860")
    assert (asker.get("/healthz").status_code, asker.get("/healthz").text) == (200, "ok")
    assert asker.get("/").status_code == 403
    assert asker.post("/healthz").status_code == 403


def test_only_named_sites_may_show_the_page_in_a_frame(client: TestClient, folder: Path) -> None:
    guard = Guard(echo, UploadFolder(folder), HOSTS, LIMIT, embed=("https://example.org",))
    shown = TestClient(guard, base_url="http://localhost:7860").get("/").headers["content-security-policy"]
    assert shown.endswith("frame-ancestors https://example.org")
    assert client.get("/").headers["content-security-policy"].endswith("frame-ancestors 'none'")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "//etc/passwd",
        "{folder}/../secret.txt",
        "{folder}/..%2fsecret.txt",
        "{folder}/%2e%2e/secret.txt",
        "{folder}/link.txt",
        "{folder}/gone.png",
        "{folder}2",
        "http://example.org/x.png",
        "file:///etc/passwd",
        "%00",
        "{folder}/a.png%00.txt",
        "~/x",
    ],
)
def test_no_other_file_is_served(client: TestClient, folder: Path, name: str) -> None:
    assert client.get(FILE + name.format(folder=folder)).status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{API}/info"),
        ("GET", f"{API}/openapi.json"),
        ("GET", f"{API}/proxy=http://example.org/"),
        ("GET", f"{API}/stream/x/1/2/playlist.m3u8"),
        ("GET", "/monitoring"),
        ("GET", "/docs"),
        ("GET", f"{API}/file/etc/passwd"),
        ("POST", f"{API}/call/show"),
        ("POST", f"{API}/run/predict"),
        ("POST", f"{API}/vibe-edit/"),
        ("POST", f"{API}/component_server"),
        ("POST", "/"),
        ("PUT", "/config"),
        ("DELETE", FILE),
    ],
)
def test_what_the_page_does_not_need_is_not_there(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 404


def test_another_name_or_another_page_is_refused(client: TestClient) -> None:
    assert client.get("/", headers={"host": "evil.example:7860"}).status_code == 403
    assert client.get("/", headers={"host": ""}).status_code == 403
    for host in ("localhost", "127.0.0.1:7860", "[::1]:7860", "[::1]"):
        assert client.get("/", headers={"host": host}).status_code == 200, host
    for origin, status in (("http://localhost:7860", 200), ("http://evil.example", 403), ("null", 403)):
        assert client.post(JOIN, json={}, headers={"origin": origin}).status_code == status, origin


def test_sizes_are_bounded_with_and_without_a_length(client: TestClient) -> None:
    def pieces(total: int) -> Any:
        for _ in range(total // 65536):
            yield b" " * 65536

    assert client.post(UPLOAD, content=b" " * LIMIT).status_code == 200
    assert client.post(UPLOAD, content=b" " * (LIMIT + (1 << 17))).status_code == 413
    assert client.post(f"{API}/cancel", content=b" " * (BODY_BYTES + 1)).status_code == 413
    assert client.post(JOIN, content=pieces(2 * BODY_BYTES)).status_code == 403
    assert client.post(JOIN, content=b"{}" + b" " * 1000).text == "1002"
    assert client.post(UPLOAD, content=pieces(2 * LIMIT)).status_code == 413
    assert client.post(f"{API}/cancel", headers={"content-length": "x"}).status_code == 413


def file_data(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "x.png"}


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ([file_data("/tmp/x.png"), "a caption with http://example.org"], 200),
        ([{"path": "http://a caption in a dict", "other": 1}], 200),
        ([file_data("http://169.254.169.254/latest")], 403),
        ([{"deep": [[file_data("https://example.org/x.png")]]}], 403),
        ([file_data("//example.org/x.png")], 403),
    ],
)
def test_a_question_may_not_name_files_elsewhere(client: TestClient, data: Any, status: int) -> None:
    assert client.post(JOIN, json={"data": data, "fn_index": 0}).status_code == status


def test_what_is_no_json_is_refused(client: TestClient) -> None:
    assert client.post(JOIN, content=b"no json").status_code == 403
    assert client.post(JOIN, content=b"[" * 200_000).status_code == 403
    assert client.post(JOIN, content=json.dumps({}).encode()).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{API}/cancel"),
        ("POST", f"{API}/reset"),
        ("POST", UPLOAD),
        ("POST", JOIN),
        ("GET", f"{HEARTBEAT}x"),
        ("GET", f"{API}/queue/data"),
    ],
)
def test_a_stranger_is_asked_to_log_in(folder: Path, method: str, path: str) -> None:
    async def locked(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"] == LOGIN_CHECK, "a stranger's request was passed on"
        known = dict(scope["headers"]).get(b"cookie") == b"known"
        await send({"type": "http.response.start", "status": 200 if known else 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client = TestClient(Guard(locked, UploadFolder(folder), HOSTS, LIMIT), base_url="http://localhost")

    sent = client.request(method, path, **({"content": b"x"} if method == "POST" else {}))
    assert (sent.status_code, sent.text) == (401, "Log in first.")
    with pytest.raises(AssertionError, match="passed on"):
        client.request(method, path, headers={"cookie": "known"}, **({"json": {}} if method == "POST" else {}))


def test_headers_of_a_proxy_count_only_behind_one(folder: Path) -> None:
    async def repeat(scope: Any, receive: Any, send: Any) -> None:
        names = sorted(name.decode() for name, _ in scope["headers"] if b"forward" in name or b"gradio" in name)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"{CLIENT.get()} {' '.join(names)}".encode()})

    given = {
        "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https",
        "Forwarded": "for=203.0.113.9", "X-Gradio-Server": "http://evil.example",
    }  # fmt: skip
    alone = TestClient(Guard(repeat, UploadFolder(folder), HOSTS, LIMIT), base_url="http://localhost")
    assert alone.get("/", headers=given).text == "testclient "
    guard = Guard(repeat, UploadFolder(folder), HOSTS, LIMIT, proxied=True, origin="example.org")
    behind = TestClient(guard, base_url="http://localhost")
    assert len(behind.get("/", headers=given).text.split()) == 1 + len(given)
    for client, status in ((alone, 403), (behind, 200)):
        assert client.post("/login", headers={"origin": "https://example.org"}).status_code == status
        assert client.post("/login", headers={"origin": "https://evil.example"}).status_code == 403


def test_a_heartbeat_is_noted_for_as_long_as_it_lasts(folder: Path) -> None:
    beats = Heartbeats()
    seen = []

    async def beating(scope: Any, receive: Any, send: Any) -> None:
        seen.append("one" in beats)
        await echo(scope, receive, send)

    guard = Guard(beating, UploadFolder(folder), HOSTS, LIMIT, beats)
    client = TestClient(guard, base_url="http://localhost")
    assert client.get(f"{HEARTBEAT}one").status_code == 200
    assert client.get(f"{HEARTBEAT}two").status_code == 200
    assert seen[-1] is False
    assert True in seen
    assert "one" not in beats
