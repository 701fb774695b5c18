"""`ttd eval` in this process, with the oracle in place of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import ttd
from ttd.cli import cli
from ttd.encoders.base import Encoder
from ttd.model import TTD

Eval = Callable[..., Result]


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Eval:
    """Runs `ttd eval NAME --data ROOT --model oracle --out tmp/out ...` (a page of images only where it is asked for)
    and raises what is not an exit.
    """

    def invoke(encoder: Encoder, name: str, root: Path, *more: object) -> Result:
        monkeypatch.setitem(ttd.__dict__, "load", lambda *args, **options: TTD(encoder))
        options = [str(value) for value in more]
        if "--out" not in options:
            options += ["--out", str(tmp_path / "out")]
        if "--images" not in options:
            options += ["--images", "0"]
        arguments = ["eval", name, "--data", str(root), "--model", "oracle", *options]
        result = CliRunner().invoke(cli, arguments, prog_name="ttd")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke
