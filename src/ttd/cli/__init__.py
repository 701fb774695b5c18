"""The command line `ttd`: thin commands that parse, call the package and print.

A command is one row of `COMMANDS`. Its module is imported when it is asked for, and imports torch,
transformers and matplotlib only when it runs, so that `ttd --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

from ttd import __version__
from ttd.cli.errors import PipeClosed, exit_code

COMMANDS = {
    "tag": "ttd.cli.tag:tag",
    "heatmap": "ttd.cli.segment:heatmap",
    "mask": "ttd.cli.segment:mask",
    "segment": "ttd.cli.segment:segment",
    "models": "ttd.cli.models:models",
    "demo": "ttd.cli.demo:demo",
    "scenes": "ttd.cli.scenes:scenes",
    "eval": "ttd.cli.eval:evaluate",
    "compare": "ttd.cli.compare:compare",
    "report": "ttd.cli.report:report",
    "bias": "ttd.cli.bias:bias",
    "data": "ttd.cli.data:data",
    "prune": "ttd.cli.prune:prune",
    "calibrate": "ttd.cli.calibrate:calibrate",
    "train": "ttd.cli.train:train",
    "merge": "ttd.cli.train:merge",
    "app": "ttd.cli.app:app",
    "cite": "ttd.cli:cite",
}

_EXTRAS = {
    "app": "gradio",
    "crf": "pydensecrf2",
    "llm": "openai",
    "nouns": "spacy",
    "siglip": "sentencepiece",
    "tensorboard": "tensorboard",
}


class CommandGroup(click.Group):
    """Commands that are looked up in `COMMANDS`, with one sentence and an exit code for every error."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the module of one command."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """As click does, but a reader that went away (`ttd models | head -1`) is distinguished from skipped
        items.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise PipeClosed from None

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs and ends the process: 0, 1 finished but skipped some, 2 wrong input, 130 and 143 for
        signals.
        """
        kwargs["standalone_mode"] = False
        raise SystemExit(exit_code(lambda: super(CommandGroup, self).main(*args, **kwargs)))


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    no_args_is_help=True,
)
@click.option("--version", is_flag=True, help="Show the version and exit.")
@click.option("--verbose", is_flag=True, help="With --version: all that a bug report needs.")
@click.pass_context
def cli(ctx: click.Context, version: bool, verbose: bool) -> None:
    """Tag and segment an image from its caption (Text-Tag Self-Distillation).

    Start with `ttd demo --out out`: it needs no download. `ttd COMMAND --help` explains a command.
    """
    if version and verbose:
        for name, value in _versions():
            click.echo(f"{name:<18} {value}")
    elif version:
        click.echo(f"ttd, version {__version__}")
    elif verbose and ctx.invoked_subcommand is None:
        raise click.UsageError("--verbose is used with --version, or after a command.")
    if version:
        ctx.exit()


@click.command()
def cite() -> None:
    """Print BibTeX of the paper whose method this is, and of this package.

    Methods, refiners and data sets have sources of their own: `ttd models` names those of the methods.
    """
    from importlib.resources import files

    click.echo(files("ttd").joinpath("assets/citation.bib").read_text("utf-8"), nl=False)


def _versions() -> list[tuple[str, str]]:
    """Names and values: versions, commit, system, device, threads, kernels, extras."""
    import platform

    from ttd.runs import commit

    return [
        ("ttd", __version__),
        ("commit", commit() or "not a checkout"),
        ("python", platform.python_version()),
        ("system", platform.platform()),
        ("processor", f"{platform.machine()}, {os.cpu_count()} cores"),
        *_torch(),
        *((name, _installed(name)) for name in _dependencies()),
        *((f"extra {extra}", _installed(package)) for extra, package in _EXTRAS.items()),
    ]


def _torch() -> list[tuple[str, str]]:
    try:
        import torch
    except ImportError:
        return [("torch", "not installed")]
    cuda = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    devices = ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]
    onednn = os.environ.get("ONEDNN_MAX_CPU_ISA", "as the processor allows")
    return [
        ("torch", torch.__version__),
        ("devices", ", ".join(devices)),
        ("threads", str(torch.get_num_threads())),
        ("kernels", f"{torch.backends.cpu.get_cpu_capability()}; oneDNN {onednn}"),
    ]


def _dependencies() -> list[str]:
    """The packages that this one needs, torch apart."""
    from importlib.metadata import requires

    lines = [line for line in requires("ttd-clip") or [] if "extra ==" not in line]
    names = [line.split(";")[0].split(">")[0].split("=")[0].split("<")[0].strip() for line in lines]
    return [name for name in names if name not in ("torch", "tomli")]


def _installed(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    """The entry point of the `ttd` command."""
    cli.main(prog_name="ttd")
