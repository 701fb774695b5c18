"""What this package is: `ttd --version --verbose`, which a bug report needs, and `ttd cite`."""

from __future__ import annotations

import os
import platform
from importlib.resources import files

import click

from ttd import __version__
from ttd.runs import commit

_EXTRAS = {
    "app": "gradio",
    "crf": "pydensecrf2",
    "llm": "openai",
    "nouns": "spacy",
    "siglip": "sentencepiece",
    "tensorboard": "tensorboard",
}


def report() -> list[tuple[str, str]]:
    """Names and values: versions, commit, system, device, threads, kernels, extras."""
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
    from importlib.metadata import requires  # takes time at the start of a command

    lines = [line for line in requires("ttd-clip") or [] if "extra ==" not in line]
    names = [line.split(";")[0].split(">")[0].split("=")[0].split("<")[0].strip() for line in lines]
    return [name for name in names if name not in ("torch", "tomli")]


def _installed(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@click.command()
def cite() -> None:
    """Print BibTeX of the paper whose method this is, and of this package.

    Methods, refiners and data sets have sources of their own: `ttd models` names those of the methods.
    """
    click.echo(files("ttd").joinpath("assets/citation.bib").read_text("utf-8"), nl=False)
