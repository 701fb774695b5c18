"""`ttd`, `python` and `torchrun` for the documented blocks, without the seconds that each import of torch takes.

A process that has everything imported listens on a socket. The programs on the blocks' PATH are small clients: they
pass their arguments, environment, folder and open files, and the process forks one that runs them. It is a process of
its own: it has its exit code, takes signals, and dies with its client.

    python -m tests.docs.warm SOCKET HUB        HUB: address of the stand-in of the hub
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import re
import runpy
import signal
import socket
import sys
import threading
import traceback
import types
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLIENT = """#!{python} -ISs
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({socket!r})
request = [os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)]
data = json.dumps(request).encode() + b"\\n"
socket.send_fds(server, [data[:1]], [0, 1, 2])
server.sendall(data[1:])
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: server.sendall(bytes([number])))
code = server.recv(1)
sys.stdin = None
os._exit(code[0] if code else 70)
"""

# `make test` runs one file: the others are what the test of the blocks is one of. `venv` without pip: it is ours.
MODULES = {"pytest": ["tests/text/test_words.py", "-n", "0"], "venv": ["--without-pip"]}


def write_clients(folder: Path, address: str) -> None:
    """The programs, to be put first on a PATH."""
    folder.mkdir(parents=True)
    for name in ("ttd", "python", "python3", "torchrun", "pip", "session"):
        path = folder / name
        path.write_text(CLIENT.format(python=sys.executable, socket=address), "utf-8")
        path.chmod(0o755)


def serve(address: str) -> None:
    """Forks a keeper for every client; returns only in the process that is to run a program."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return keep(client)
        client.close()


def keep(client: socket.socket) -> None:
    """Forks the program and waits for it: its end is told to the client, the client's signals and its end to it."""
    start, files, *_ = socket.recv_fds(client, 1, 3)
    stream = client.makefile("rb")
    name, arguments, folder, environment = json.loads(start + stream.readline())
    program = os.fork()
    if program == 0:
        stream.close()
        client.close()
        return become(name, arguments, folder, environment, files)
    for file in files:
        os.close(file)

    def follow() -> None:
        with contextlib.suppress(ProcessLookupError):
            while number := client.recv(1):
                os.kill(program, number[0])
            os.kill(program, signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()
    _, status = os.waitpid(program, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):  # the client may be dead
        client.sendall(bytes([code if code >= 0 else 128 - code]))
    os._exit(0)


def become(name: str, arguments: list[str], folder: str, environment: dict[str, str], files: list[int]) -> None:
    """This process runs the program as if it had been started so."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0, "r", encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [name, *arguments]
    # torch makes its threads again after a fork at the first use: two threads that use them first at once take them
    # from each other ("Invalid thread pool").
    torch = importlib.import_module("torch")
    torch.set_num_threads(torch.get_num_threads())
    code: object = 0
    try:
        run(name, arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    leave(code)


def leave(code: object) -> None:
    """Ends the process as Python does, but does not take apart what was imported before it was forked."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code or 0)


def run(name: str, arguments: list[str]) -> None:
    """The program itself."""
    if name == "session":
        session()
    elif name == "torchrun":
        os.environ["PYTHON_EXEC"] = "python"
        runpy.run_module("torch.distributed.run", run_name="__main__")
    elif name == "pip":
        # Not `-e`: to describe an editable form the build asks for a package that nothing else needs.
        run_python(["-m", "pip", *(argument for argument in arguments if argument != "-e")])
    elif name == "ttd":
        run_ttd()
    else:
        run_python(arguments)


def run_ttd() -> None:
    """The console script, on numbers that are small enough for a test."""
    from tests.docs.smaller import smaller
    from ttd.cli import main

    sys.argv[1:] = smaller(sys.argv[1:])
    if sys.argv[1:2] == ["app"]:
        sys.stdout.write = _ask_when_told(sys.stdout.write)  # type: ignore[method-assign]
    main()


def _ask_when_told(write: Callable[[str], int]) -> Callable[[str], int]:
    """Once the address of the page is printed, reads the page and presses Ctrl-C."""

    def ask(address: str) -> None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address) as page:
            write(f"asked: {page.status} {'Text-Tag Self-Distillation' in page.read().decode()}\n")
        os.kill(os.getpid(), signal.SIGINT)

    def watched(text: str) -> int:
        if found := re.match(r"The page is at (http\S+)", text):
            threading.Thread(target=ask, args=(found[1],), daemon=True).start()
        return write(text)

    return watched


def run_python(arguments: list[str]) -> None:
    """`python -c CODE ...`, `python -m MODULE ...`, `python SCRIPT ...`, each with `-u` or without."""
    arguments = [argument for argument in arguments if argument != "-u"]
    how, what = arguments[0], arguments[1] if len(arguments) > 1 else ""
    sys.path.insert(0, "")
    if how == "-c":
        sys.argv = arguments[:1] + arguments[2:]
        exec(compile(what, "<string>", "exec"), vars(sys.modules["__main__"]))
    elif how == "-m" and what == "ttd":
        sys.argv = ["ttd", *arguments[2:]]
        run_ttd()
    elif how == "-m":
        from tests.docs.smaller import smaller

        sys.argv = [*smaller([what, *arguments[2:]]), *MODULES.get(what, [])]
        for module in [module for module in sys.modules if module.partition(".")[0] == "tests"]:
            del sys.modules[module]  # those of the folder count
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(how, run_name="__main__")


def session() -> None:
    """Runs pieces of Python one after the other in one set of names: a line of JSON in, a line of JSON out."""
    names = vars(sys.modules["__main__"])
    for line in sys.stdin:
        answer: dict[str, Any] = {"error": None}
        with contextlib.redirect_stdout(io.StringIO()) as out:
            try:
                exec(compile(json.loads(line), "<block>", "exec"), names)
            except Exception:
                answer["error"] = traceback.format_exc()
        answer["output"] = out.getvalue()
        print(json.dumps(answer), flush=True)


def import_all() -> None:
    """All that takes time."""
    import torch
    import transformers

    from ttd.cli import COMMANDS

    torch.set_num_threads(1)
    for name in ("CLIPModel", "CLIPTokenizer", "SamHQModel", "SiglipModel"):
        getattr(transformers, name)
    others = ["gradio", "matplotlib.pyplot", "peft", "scipy.io", "torch.distributed.run", "ttd.model", "ttd.scenes"]
    for name in [*others, *(row.partition(":")[0] for row in COMMANDS.values())]:
        importlib.import_module(name)


if __name__ == "__main__":
    from tests.docs.stand_ins import redirect

    redirect(sys.argv[2])
    import_all()
    assert threading.active_count() == 1, "a process with threads cannot be forked safely"
    gc.freeze()  # no collection in a fork copies what all share
    serve(sys.argv[1])
