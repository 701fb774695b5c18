"""`ttd --version --verbose`: what a bug report needs."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from ttd import __version__

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
        ("commit", _commit()),
        ("python", platform.python_version()),
        ("system", platform.platform()),
        ("processor", f"{platform.machine()}, {os.cpu_count()} cores"),
        *_torch(),
        *((name, _installed(name)) for name in _dependencies()),
        *((f"extra {extra}", _installed(package)) for extra, package in _EXTRAS.items()),
    ]


def _commit() -> str:
    """The commit of a checkout, with a mark where files were changed."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return "not a checkout"
    git = ["git", "-C", str(folder)]
    try:
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=5)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return "unknown (git does not answer)"
    return found.stdout.strip() + (" with changes" if changed.stdout.strip() else "")


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
    lines = [line for line in requires("ttd-clip") or [] if "extra ==" not in line]
    names = [line.split(";")[0].split(">")[0].split("=")[0].split("<")[0].strip() for line in lines]
    return [name for name in names if name not in ("torch", "tomli")]


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
