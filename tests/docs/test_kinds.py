"""Each documented command that takes any model, once with every kind of model and format that can be read."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.docs.conftest import World
from tests.docs.inputs import prepare
from tests.docs.left_out import reason
from tests.docs.pages import PYTHON, SHELL, commands, read_blocks
from tests.docs.stand_ins import OPEN_CLIP, openai_file
from tests.docs.test_blocks import is_long, wrong

# "OpenAI" stands for a file in OpenAI's format.
KINDS = ("mini", "clip-vit-b16", OPEN_CLIP, "OpenAI", "siglip-base-patch16-224", "tcl")
PAGES = ("README.md", "docs/command-line.md", "docs/data.md", "docs/benchmarks.md", "docs/bias.md", "docs/python.md")
TAKES_A_MODEL = (
    "tag",
    "heatmap",
    "mask",
    "segment",
    "demo",
    "prune",
    "train",
    "eval",
    "compare",
    "bias",
    "data tag",
    "app",
)
HAS_CRF = importlib.util.find_spec("pydensecrf") is not None
_USE = re.compile(r"ttd((?: [a-z][a-z0-9+-]*)+)")


@pytest.mark.slow
@pytest.mark.apart
@pytest.mark.kinds
@pytest.mark.parametrize("kind", KINDS)
def test_every_command_with_every_kind(kind: str, world: World, tmp_path: Path) -> None:
    model = kind
    if kind == "OpenAI":
        model = str(tmp_path / "ViT-B-16.pt")
        Path(model).write_bytes(openai_file())
    seen: set[str] = set()
    faults = []
    for page in PAGES:
        folder = tmp_path / Path(page).stem
        absent: set[str] = set()
        prepare(page, folder, world.clients, lambda line, folder=folder: world.check(line, folder), model)  # type: ignore[misc]
        session = world.session(folder)
        for block in read_blocks(page):
            if block.kind == PYTHON:
                session.run(re.sub(r'ttd\.load\("[^"]+"', f"ttd.load({model!r}", block.text))
            elif block.kind == SHELL and not is_long(block):
                chosen = [
                    line for command in commands(block) if (line := with_model(command.line, model, seen, absent))
                ]
                for ran in world.shell(chosen, folder):
                    fault = wrong(ran.line, "", ran)
                    # A CLIP's own protocol has DenseCRF; without the extra it is refused with this sentence.
                    if fault and not (ran.code == 2 and "DenseCRF needs pydensecrf" in ran.output and not HAS_CRF):
                        faults.append(f"{page}:{block.line}\n{fault}")
    assert {use.split()[0] for use in seen} >= {use.split()[0] for use in TAKES_A_MODEL}
    assert not faults, "\n\n".join(faults)


def with_model(line: str, model: str, seen: set[str], absent: set[str]) -> str | None:
    """The command with another model; None where it is left out: it was seen, it is about one model alone, it shows a
    refusal, or it reads what one that was left out would have written (`absent`)."""
    line = re.sub(r" --adapter mini\+\S+", "", line).strip()
    use = _USE.match(line)
    if use is None:
        return None if reason(line) or re.match(r"make |pip |torchrun |python3 |\$ |find ", line) else line
    words = use[1].strip()
    takes_model = any(f"{words} ".startswith(f"{name} ") for name in TAKES_A_MODEL) and "--tagger" not in line
    again = takes_model and words in seen
    if again or reason(line) or "mini+" in line or ";" in line or any(path in line.split() for path in absent):
        absent.update(path for out in re.findall(r"--(?:out|shards) ([^\s;]+)", line) for path in (out, f"{out}/"))
        return None
    if not takes_model:
        return line
    seen.add(words)
    line = line.partition(" #")[0]
    return re.sub(r"--model \S+", f"--model {model}", line) if "--model " in line else f"{line} --model {model}"
