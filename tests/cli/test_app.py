"""`ttd app`: who may come in, before anything is loaded."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.cli.conftest import Run
from tests.extras import needs
from ttd.app.access import Access
from ttd.cli import cli


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been served."""
    calls: list[Any] = []
    monkeypatch.setattr(Access, "check_free", lambda self: None)
    monkeypatch.setattr("ttd.cli.app._pool", lambda *given: given)
    monkeypatch.setattr("ttd.cli.app._serve", lambda *given: calls.append(given))
    monkeypatch.delenv("TTD_APP_PASSWORD", raising=False)
    return calls


def test_this_machine_needs_no_password(run: Run, served: list[Any]) -> None:
    assert run("app").exit_code == 0
    (pool, access, *_), *_ = served
    assert access == Access("127.0.0.1", 7860)
    assert pool[0] == ("mini",)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_other_machines_need_user_and_password(run: Run, served: list[Any], host: str) -> None:
    refused = run("app", "--host", host)
    assert refused.exit_code == 2
    assert "--user" in refused.stderr
    no_password = run("app", "--host", host, "--user", "anna")
    assert no_password.exit_code == 2
    assert "TTD_APP_PASSWORD" in no_password.stderr
    assert served == []


def test_the_password_comes_from_a_file_or_the_environment(
    run: Run, served: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    file.write_text("from the file\nnot this\n")
    assert run("app", "--host", "0.0.0.0", "--user", "anna", "--password-file", str(file)).exit_code == 0
    monkeypatch.setenv("TTD_APP_PASSWORD", "from the environment")
    assert run("app", "--host", "0.0.0.0", "--user", "anna").exit_code == 0
    assert "TTD_APP_PASSWORD" not in os.environ
    assert [call[1].password for call in served] == ["from the file", "from the environment"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--password-file", "x"], "--user"),
        (["--user", "anna", "--password-file", "/none/such"], "/none/such"),
        (["--user", "anna", "--password-file", os.devnull], "fewer than 8"),
        (["--annotate", "images"], "--out"),
        (["--out", "set"], "--annotate"),
        (["--port", "0"], "--port"),
        (["--host", "0.0.0.0", "--user", "anna", "--public"], "--public"),
        (["--embed", "example.org; script-src *"], "--embed"),
    ],
)
def test_mistakes_are_sentences(run: Run, served: list[Any], arguments: list[str], sentence: str) -> None:
    result = run("app", *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert served == []


def test_a_wrong_model_ends_it_before_a_page_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Access, "check_free", lambda self: None)
    monkeypatch.setattr("ttd.cli.app._serve", lambda *given: pytest.fail("it was served"))
    result = CliRunner().invoke(cli, ["app", "--model", "no such model"])
    assert result.exit_code == 2
    assert "no such model" in result.stderr


def test_the_password_is_asked_for_on_a_terminal() -> None:
    """Typed twice, never shown; here the two differ, so that nothing is served."""
    command = [sys.executable, "-m", "ttd", "app", "--host", "0.0.0.0", "--user", "anna"]
    environment = {name: value for name, value in os.environ.items() if name != "TTD_APP_PASSWORD"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, environment)
    shown = b""
    try:
        for typed in (b"first one\n", b"second one\n"):
            while not shown.rstrip().endswith((b"anna:", b"confirmation:")):
                shown += os.read(terminal, 1000)
            os.write(terminal, typed)
            shown += b"."
        while b"do not match" not in shown:
            shown += os.read(terminal, 1000)
        assert b"first one" not in shown
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


@pytest.mark.slow
def test_a_taken_port_is_a_sentence_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    needs("app", "gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "ttd", "app", "--port", str(port)]
        taken.listen()
        result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 2
    assert result.stderr == f"ttd: port {port} is taken: choose another with --port.\n"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    assert server.stdout.readline() == f"The page is at http://127.0.0.1:{port}/ (stop it with Ctrl-C).\n"
    assert len(list(tmp_path.glob("ttd-app-*"))) == 1
    server.send_signal(signal.SIGINT)
    _, said = server.communicate(timeout=600)
    assert server.returncode == 130
    assert said.strip() == "ttd: Stopped; what was written is complete."
    assert list(tmp_path.glob("ttd-app-*")) == []
