"""Sharing a finished adapter: its model card, a hub, or one plain model that needs neither PEFT nor this package."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ttd.encoders.base import Encoder
from ttd.encoders.domain import write_domain
from ttd.encoders.loading.formats import ADAPTER_WEIGHTS, Card, write_card
from ttd.encoders.loading.formats import CARD as BASE_CARD
from ttd.encoders.registry import load_encoder
from ttd.errors import InputError
from ttd.files import schema, whole_folder, write_file
from ttd.files.documents import read_json, refused
from ttd.training.checkpoint import RECORD, read_record
from ttd.training.config import Config
from ttd.training.logging import read_log
from ttd.training.lora import hub_name

CARD = "README.md"
RESULTS = "results.json"
METHOD = {
    "model": ("rank", "alpha", "dropout", "towers", "kept"),
    "data": ("tags", "captions", "stop_words"),
    "choice": None,
    "loss": None,
}
"""Settings that decide what is trained (None: all of the section), as opposed to on what data, in what size and for how
long."""
_OPEN = ("similarity", "w", "c", "learned")  # of the loss: how Eq. 3 is read, which the paper leaves open

_NEEDED = schema.fields(
    {
        "base": schema.text,
        "data": schema.text,
        "pairs": schema.count,
        "seed": schema.integer,
        "world": schema.count,
        "versions": schema.mapping(),
        "config": schema.fields(
            {
                **dict.fromkeys(Config().to_dict(), schema.mapping()),
                "model": schema.fields({"name": schema.any_text}),
                "data": schema.fields({"sources": schema.each(schema.any_text), "keep": schema.any_text}),
            }
        ),
    }
)
_NUMBER = schema.either(schema.number, schema.text, schema.flag, schema.null)
_NUMBERS = schema.mapping(schema.either(_NUMBER, schema.mapping(_NUMBER)))


def write_model_card(folder: Path, repo: str = "THIS_FOLDER") -> Path:
    """Write the card `README.md` of a run's folder from `run.json`, `log.jsonl` and, if there, `results.json`.

    `repo` is where readers find the adapter. `results.json` holds evaluation results as name -> number, or as table
    -> name -> number.
    """
    record = read_record(folder)
    if record is None:
        raise InputError(f"{folder} holds no {RECORD}, from which its card is made: give the folder of a training run")
    with refused(folder / RECORD, "restore it, or train again"):
        _NEEDED(record)
    log = read_log(folder)
    path = folder / CARD
    write_file(path, "\n".join([*_head(record, repo), *_recipe(record), *_training(log), *_results(folder)]))
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
        "is pulled towards the union of the maps of those words of the caption that the image shows.",
        _whose(record["config"]),
        "",
        "```python",
        "import ttd",
        f"model = ttd.load({model['name']!r}, adapter={repo!r})   # adapter_scale=0..1 weakens it",
        "```",
        "",
        f"Base: `{model['name']}`, fingerprint `{record['base'][:18]}`; another base is refused.",
        "",
    ]


def _whose(config: dict[str, Any]) -> str:
    """Whether the method's settings are the paper's, which are the defaults."""
    papers = Config().to_dict()
    changed = [
        f"{section}.{name} = {json.dumps(value)}"
        for section, names in METHOD.items()
        for name, value in config[section].items()
        if (names is None or name in names) and value != papers[section].get(name, 0.0) and name not in _OPEN
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
        [
            f"{e['step']}",
            f"{e['loss']:.4f}",
            *(_cell(e.get(name), ".4f") for name in weights),
            _cell(e.get("selected"), ".0%"),
        ]
        for e in rows
    ]
    return ["## Training", "", *(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)), ""]


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _results(folder: Path) -> list[str]:
    path = folder / RESULTS
    if not path.is_file():
        return [
            "## Results",
            "",
            "Not evaluated. The losses above say nothing about how well words are found in images.",
            "",
        ]
    lines = ["## Results", "", "| | |", "|---|---|"]
    for name, value in read_json(path, _NUMBERS, remedy="hold names and their numbers in it, or remove it").items():
        rows = {f"{name}: {inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value}
        lines += [f"| {label} | {_rounded(number)} |" for label, number in rows.items()]
    return [*lines, ""]


def _rounded(number: Any) -> str:
    return f"{number:.4g}" if isinstance(number, float) else str(number)


FILES = ("adapter_config.json", ADAPTER_WEIGHTS[0], BASE_CARD, CARD)


def check_hub(repo: str) -> None:
    """Make sure, before anything is trained, that `push_to_hub` will find a hub, a user, and a name that may be.

    The hub is $HF_ENDPOINT, the user's token $HF_TOKEN or what `hf auth login` saved.

    Raises:
        InputError: one of them is missing.
    """
    from huggingface_hub import errors
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not in its list

    try:
        validate_repo_id(repo)
    except errors.HFValidationError:
        raise InputError(f"{repo!r} is not the name of a repository: write it as user/name") from None
    with _told(repo):
        _api().whoami()


def push_to_hub(folder: str | Path, repo: str, *, private: bool = False) -> str:
    """Upload a finished adapter, whose card then names the repository; made where it is not there yet.

    Args:
        folder: of `ttd train`.
        repo: "user/name".
        private: of a repository that is made.

    Returns:
        the address of the upload.

    Raises:
        InputError: the folder holds no adapter, or the hub cannot be reached or refuses.
    """
    folder = Path(folder)
    if missing := [name for name in FILES[:2] if not (folder / name).is_file()]:
        raise InputError(f"{folder} holds no finished adapter ({missing[0]} is missing): train it first")
    write_model_card(folder, repo)
    api = _api()
    with _told(repo, folder):
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, allow_patterns=list(FILES), commit_message="Adapter trained with TTD"
        )
    return str(getattr(commit, "commit_url", None) or f"{api.endpoint}/{repo}")


def _api() -> Any:
    from huggingface_hub import HfApi, get_token

    token = get_token()
    if token is None:
        raise InputError("a hub's upload needs a user: log in with `hf auth login`, or set HF_TOKEN")
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None, token=token)


@contextmanager
def _told(repo: str, folder: Path | None = None) -> Iterator[None]:
    """Errors of the hub as one sentence; what was trained is never lost by them."""
    from huggingface_hub import errors

    kept = f"; the adapter is in {folder}, and the same command tries again" if folder else ""
    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        reason = "does not accept this token" if status in (401, 403) else f"answered {status}"
        raise InputError(f"the hub {reason} for {repo}: check its name and the token's rights{kept}") from error
    except InputError:
        raise
    except Exception as error:  # the HTTP library below the hub's client changes with its version
        raise InputError(
            f"the hub cannot be reached ({type(error).__name__}): go online, or leave --push-to-hub out{kept}"
        ) from error


VOCABULARY = "words.txt"
DOMAIN = "domain.json"


def merge(model: str | Path, adapter: str | Path, out: str | Path, *, scale: float = 1.0) -> Path:
    """Write the merged model in float32, whole or not at all.

    Args:
        model: the base.
        adapter: a PEFT folder that belongs to it.
        out: a new or empty folder, which appears whole: the encoder's own format (see `Encoder.save`; a transformers
            folder with tokenizer, for TCL `tcl.safetensors` with the official parameter names) and `ttd.json`.
        scale: how much of the adapter counts, 0..1.

    Returns:
        `out`.

    Raises:
        InputError: `out` is not empty.
        ModelError: the adapter does not fit the base.
    """
    out = Path(out)
    check_new(out)
    write_model(load_encoder(model, adapter=adapter, adapter_scale=scale, device="cpu", dtype="float32"), out)
    return out


def check_new(out: Path) -> None:
    """Raise `InputError` where a folder that a model is to be written to holds something."""
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} is not empty: choose a new folder for the model")


def write_model(encoder: Encoder, out: Path) -> None:
    """Write an encoder, whole or not at all, as a folder that `ttd.load` reads, with its thresholds and calibration."""
    with whole_folder(out) as part:
        encoder.save(part)
        write_card(part, _card(encoder, part))


def _card(encoder: Encoder, out: Path) -> Card:
    if encoder.vocabulary is not None:
        words = "".join(f"{word}\n" for word in sorted(encoder.vocabulary))
        (out / VOCABULARY).write_text(words, encoding="utf-8")
    if encoder.domain is not None:
        write_domain(out / DOMAIN, encoder.domain)
    return Card(
        kind=encoder.kind,
        method=encoder.method_name,
        image_size=encoder.image_size,
        background=encoder.background,
        caption_threshold=encoder.caption_threshold,
        calibration=encoder.calibration,
        fingerprint=encoder.fingerprint(),
        vocabulary=VOCABULARY if encoder.vocabulary is not None else None,
        domain=DOMAIN if encoder.domain is not None else None,
    )
