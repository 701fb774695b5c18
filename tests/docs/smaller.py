"""The few documented commands whose numbers, not whose inputs, make them long: what a test runs in their place.

What is changed is listed at the end of the tests. Everything else runs as it is written, on small inputs.
"""

from __future__ import annotations

import os

SCENES = 24  # images to measure on
PAIRS = 96  # images to train on
STEPS = 2
PORT = "TTD_DOCS_PORT"  # variable with a free port for `ttd app`


def smaller(arguments: list[str]) -> list[str]:
    """The arguments of `ttd` as a test runs them; of `python -m`, those after it."""
    words = list(arguments)
    match words:
        case ["scenes", "write", *_] if "--count" in words:
            place = words.index("--count") + 1
            words[place] = str(min(int(words[place]), SCENES if "tagmask" in words else PAIRS))
        case ["experiments.train_mini", *_]:
            words.append("--brief")
        case ["experiments.prove", *_]:
            words += ["--brief"] if "--run" in words else ["--brief", "--seeds", "1", "--run", "paper-raw.values"]
        case ["experiments.report", *_] if "--count" not in words:
            words += ["--count", str(SCENES)]
        case ["experiments.methods", *_] if "--table" in words:
            words[words.index("--count") + 1] = "4"
        case ["experiments.methods", *_]:
            words += ["--scenes", "1"]
        case ["demo", *_] if "--scenes" not in words:
            words += ["--scenes", "2"]
        case ["train", *_] if _value(words, "--config").startswith("scenes") and not _names_steps(words):
            words += ["--set", f"optimiser.steps={STEPS}"]
        case ["train", *_] if "--steps" in words:
            words[words.index("--steps") + 1] = str(STEPS)
        case ["train", *_] if _value(words, "--config") == "paper":  # it has 8 processes that read images
            words += ["--set", f"data.workers={int('WORLD_SIZE' not in os.environ)}"]
        case ["app", *_] if "--port" not in words:
            words += ["--port", os.environ.get(PORT, "PORT")]
    return words


def _value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1] if option in words else ""


def _names_steps(words: list[str]) -> bool:
    return any(word == "--steps" or word.startswith("optimiser.steps=") for word in words)
