"""What the pages' blocks run in: programs without start-up time, a hub, a language model, no other network."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.docs.smaller import PORT
from tests.docs.stand_ins import fill
from tests.docs.warm import write_clients
from tests.encoders.hub_stand_in import serving
from tests.extras import needs
from tests.taggers.stub_server import Stub

MARK = "\x1e"
SECONDS = 900  # what hangs is ended; what is slow, is not


@dataclass
class Ran:
    """A command that ran: what it printed on both streams, and its exit code."""

    line: str
    output: str
    code: int


@dataclass
class World:
    """Where blocks run.

    Attributes:
        environment: of every program.
        clients: the folder with the programs.
    """

    environment: dict[str, str]
    clients: Path
    sessions: list[Session] = field(default_factory=list)

    def shell(self, lines: list[str], folder: Path) -> list[Ran]:
        """Runs command lines one after the other in one bash, whatever their exit codes."""
        script = "".join(f"{line}\nprintf '{MARK}%d{MARK}' $?\n" for line in lines)
        printed, code = self._run(["bash", "-c", script], folder)
        ran = [Ran(line, *pair) for line, pair in zip(lines, _pairs(printed.split(MARK)), strict=False)]
        assert len(ran) == len(lines), f"bash ended with {code} at: {lines[len(ran)]}\n{printed}"
        return ran

    def check(self, line: str, folder: Path) -> None:
        """Runs a line that a page's inputs need."""
        (ran,) = self.shell([line], folder)
        assert ran.code == 0, f"{line}\n{ran.output}"

    def session(self, folder: Path) -> Session:
        """A new Python in the folder."""
        self.sessions.append(Session(self, folder))
        return self.sessions[-1]

    def _run(self, command: list[str], folder: Path) -> tuple[str, int]:
        with tempfile.TemporaryFile() as out:  # a file: what goes on in the background keeps no pipe open
            process = subprocess.Popen(
                command, cwd=folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                out.seek(0)
                raise AssertionError(f"not done after {SECONDS} s: {command[-1]}\n{out.read().decode()}") from None
            out.seek(0)
            return out.read().decode("utf-8", "replace"), code


class Session:
    """A Python process in which the blocks of a page run one after the other."""

    def __init__(self, world: World, folder: Path) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the session
        self._process = subprocess.Popen(
            [world.clients / "session"], cwd=folder, env=world.environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip

    def run(self, code: str) -> str:
        """What the code printed; an error in it is an AssertionError with its traceback."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(code) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "the process ended", "output": ""}')
        assert answer["error"] is None, f"{code}\n{answer['output']}\n{answer['error']}"
        return str(answer["output"])

    def close(self) -> None:
        self._process.communicate()
        self._errors.close()


def _pairs(parts: list[str]) -> Iterator[tuple[str, int]]:
    return ((parts[i], int(parts[i + 1])) for i in range(0, len(parts) - 1, 2))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all pages: what is downloaded once stays in its cache, as it does with a reader."""
    needs("app", "gradio")  # `ttd app` is on the pages
    folder = tmp_path_factory.mktemp("world")
    with serving() as hub, Stub() as language_model, tempfile.TemporaryDirectory() as place:
        fill(hub)
        address = f"{place}/warm"  # the name of a socket may not be long
        clients = folder / "bin"
        write_clients(clients, address)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))},
            "PATH": os.pathsep.join([str(clients), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            "HOME": str(folder),
            "HF_HOME": str(folder / "hf"),
            "HF_ENDPOINT": hub.url,
            "TTD_CACHE": str(folder / "cache"),
            PORT: str(_free_port()),
            "OMP_NUM_THREADS": "1",
            # A language model at http://localhost:8000 is asked through this proxy; nothing else is reached.
            "http_proxy": language_model.url.removesuffix("/v1"),
            "https_proxy": "http://127.0.0.1:9",
            "no_proxy": "127.0.0.1",
            # `pip install` says what it would do: the environment of this test has it all.
            "PIP_DRY_RUN": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say: without
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.docs.warm", address, hub.url]
        warm = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert warm.stdout
            assert warm.stdout.readline() == "ready\n"
            world = World(environment, clients)
            yield world
            for session in world.sessions:
                session.close()
        finally:
            warm.kill()
            warm.communicate()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
