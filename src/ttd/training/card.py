"""The model card of an adapter: its base, data and recipe, what was measured, and what was not."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from ttd.atomic import whole_file
from ttd.training.adapter import hub_name
from ttd.training.config import Choice, Config, Loss
from ttd.training.journal import read_log
from ttd.training.record import read_record

CARD = "README.md"
RESULTS = "results.json"
METHOD = {
    "model": {"rank", "alpha", "dropout", "towers", "kept"},
    "data": {"tags", "captions", "stop_words"},
    "choice": {field.name for field in fields(Choice)},
    "loss": {field.name for field in fields(Loss)},
}
"""Settings that decide what is trained, as opposed to on what data, in what size and for how long."""


def write_model_card(folder: Path, repo: str = "THIS_FOLDER") -> Path:
    """Write the card `README.md` of a run's folder from `run.json`, `log.jsonl` and, if there, `results.json`.

    `repo` is where readers find the adapter. `results.json` holds evaluation results as name -> number, or as table
    -> name -> number.
    """
    record = read_record(folder) or {}
    log = read_log(folder)
    path = folder / CARD
    with whole_file(path) as part:
        lines = [*_head(record, repo), *_recipe(record), *_training(log), *_results(folder)]
        part.write_text("\n".join(lines), "utf-8")
    return path


def _head(record: dict[str, Any], repo: str) -> list[str]:
    model = record["config"]["model"]
    front = ["---", "library_name: peft", "tags:", "- ttd", "- clip", "- lora"]
    base = hub_name(model["name"])
    if "/" in base and not Path(base).exists():
        front.insert(2, f"base_model: {base}")
    return [
        *front,
        "---",
        "",
        f"# TTD adapter for {model['name']}",
        "",
        "A low-rank adapter fine-tuned with Text-Tag Self-Distillation (ECCV 2024): the similarity map of a caption",
        "is pulled towards the union of the maps of those words of the caption that the picture shows.",
        _whose(record["config"]),
        "",
        "```python",
        "import ttd",
        f"model = ttd.load({model['name']!r}, adapter={repo!r})   # adapter_scale=0..1 weakens it",
        "```",
        "",
        f"Base: `{model['name']}`, fingerprint `{record['base'][:16]}`; another base is refused.",
        "",
    ]


def _whose(config: dict[str, Any]) -> str:
    """Whether the method's settings are the paper's, which are the defaults."""
    papers = Config().to_dict()
    changed = [
        f"{section}.{name} = {json.dumps(value)}"
        for section, names in METHOD.items()
        for name, value in config[section].items()
        if name in names and value != papers[section][name]
    ]
    if not changed:
        return "The method's settings are the paper's."
    return f"This is not the paper's recipe: {', '.join(changed)}."


def _recipe(record: dict[str, Any]) -> list[str]:
    config = record["config"]
    sources = ", ".join(config["data"]["sources"])
    lines = [
        "## Data and recipe",
        "",
        f"{record['pairs']:,} image-text pairs from `{sources}`, fingerprint `{record['data'][:16]}`"
        + (f", chosen by the keep-list `{config['data']['keep']}`." if config["data"]["keep"] else "."),
        "",
        *([f"Trained by `{record['command']}`.", ""] if record.get("command") else []),
        "```toml",
    ]
    for section, values in config.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return [*lines, "```", "", f"Seed {record['seed']}; {record['world']} process(es); {versions}.", ""]


def _training(log: list[dict[str, Any]]) -> list[str]:
    if not log:
        return []
    rows = [log[0], log[-1]] if len(log) > 1 else log
    suffix = "_weight"
    weights = {name.removesuffix(suffix): value for name, value in log[-1].items() if name.endswith(suffix)}
    titles = [f"L_{name}" + ("" if weight == 1 else f" (times {weight:g})") for name, weight in weights.items()]
    head = ["step", "loss", *titles, "words selected"]
    lines = [
        [f"{e['step']}", f"{e['loss']:.4f}", *(f"{e[name]:.4f}" for name in weights), f"{e['selected']:.0%}"]
        for e in rows
    ]
    return ["## Training", "", *(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)), ""]


def _results(folder: Path) -> list[str]:
    path = folder / RESULTS
    if not path.is_file():
        return [
            "## Results",
            "",
            "Not evaluated. The losses above say nothing about how well words are found in pictures.",
            "",
        ]
    lines = ["## Results", "", "| | |", "|---|---|"]
    for name, value in json.loads(path.read_text(encoding="utf-8")).items():
        rows = {f"{name}: {inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value}
        lines += [f"| {label} | {_rounded(number)} |" for label, number in rows.items()]
    return [*lines, ""]


def _rounded(number: Any) -> str:
    return f"{number:.4g}" if isinstance(number, float) else str(number)
