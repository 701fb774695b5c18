"""The settings of a run: sections, read from TOML, overridden by `key=value`, checked."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from ttd.errors import InputError
from ttd.files.documents import parse_toml, read_toml
from ttd.files.schema import Misfit, Schema, any_text, anything, integer, number
from ttd.registry import LOSS_TERMS
from ttd.training.config_sections import Augment, Choice, Data, Loss, Model, Optimiser, Run

__all__ = [
    "SHIPPED",
    "Augment",
    "Choice",
    "Config",
    "Data",
    "Loss",
    "Model",
    "Optimiser",
    "Run",
    "check",
    "from_dict",
    "read_config",
]

SHIPPED = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Config:
    """A whole run; `[section]` in TOML, `section.name` in overrides."""

    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    choice: Choice = field(default_factory=Choice)
    loss: Loss = field(default_factory=Loss)
    optimiser: Optimiser = field(default_factory=Optimiser)
    run: Run = field(default_factory=Run)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Section -> name -> value."""
        content = asdict(self)
        content["loss"].update(content["loss"].pop("others"))
        return content


def read_config(source: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a shipped config by name ("paper", "scenes-paper"), a TOML file, or None for the defaults.

    Args:
        source: name or path.
        overrides: `section.name=value`, the value as in TOML; text needs no quotes.

    Raises:
        InputError: a file, name or value that is wrong.
    """
    content = {} if source is None else _read_toml(source)
    for override in overrides:
        section, name, value = _split(override)
        content.setdefault(section, {})
        if not isinstance(content[section], dict):
            raise InputError(f"{section} must be a section: write [{section}] above its names")
        content[section][name] = value
    config = from_dict(content)
    check(config)
    return config


def from_dict(content: Mapping[str, Any]) -> Config:
    """A config from sections of values; what is missing has its default."""
    config = Config()
    known = [f.name for f in fields(Config)]
    for section, values in content.items():
        if section not in known or not isinstance(values, Mapping):
            raise InputError(f"unknown section {section!r} in the config{_close(section, known)}")
        if section == "loss":
            values, others = _split_terms(values)
            config = replace(config, loss=replace(config.loss, others=others))
        config = replace(config, **{section: _fill(getattr(config, section), section, values)})
    return config


def check(config: Config) -> None:
    """Raise InputError where values do not go together."""
    augment, loss, optimiser, run = config.augment, config.loss, config.optimiser, config.run
    for name, value, least in (
        ("model.rank", config.model.rank, 1),
        ("augment.shortest", augment.shortest, 1),
        ("augment.crop", augment.crop, 1),
        ("optimiser.batch", optimiser.batch, 1),
        ("optimiser.epochs", optimiser.epochs, 1),
        ("optimiser.rate", optimiser.rate, 0),
        ("optimiser.warmup", optimiser.warmup, 0),
        ("optimiser.clip", optimiser.clip, 0),
        ("loss.negatives", loss.negatives, 0),
        ("loss.w", loss.w, 0),
        ("loss.compared", loss.compared, 1),
        *((f"loss.{name}", weight, 0) for name, weight in loss.weights().items()),
        ("data.workers", config.data.workers, 0),
        ("run.seed", run.seed, 0),
        ("run.checkpoint_every", run.checkpoint_every, 1),
        ("run.keep_checkpoints", run.keep_checkpoints, 1),
        ("run.log_every", run.log_every, 1),
    ):
        if value < least:
            raise InputError(f"{name} must be at least {least}, not {value}")
    for name, share in (
        ("augment.flip", augment.flip),
        ("choice.percentile / 100", config.choice.percentile / 100),
        ("choice.threshold", config.choice.threshold),
        ("data.max_bad_samples", config.data.max_bad_samples),
        ("model.dropout", config.model.dropout),
        ("model.kept", config.model.kept),
    ):
        if not 0 <= share <= 1:
            raise InputError(f"{name} must be in 0..1, not {share}")
    if augment.shortest > augment.longest:
        raise InputError(f"augment.shortest ({augment.shortest}) exceeds augment.longest ({augment.longest})")
    if loss.floor > 1 or (loss.floor < 0 and loss.floor != -1):
        raise InputError(f"loss.floor must be in 0..1, or be -1 for none, not {loss.floor}")
    if (loss.w or loss.c or loss.learned) and loss.similarity == "raw":
        raise InputError(
            'loss.w, loss.c and loss.learned belong to loss.similarity = "calibrated": leave them out, or set w '
            "and c to 0"
        )
    if loss.c and not loss.w:
        raise InputError("loss.c needs loss.w: give both, or neither for the model's own calibration")
    if loss.relative and loss.floor >= 0:
        raise InputError("loss.relative sets its own zero: leave out loss.floor")
    if (config.choice.by == "given") != bool(config.data.tags):
        raise InputError('data.tags and choice.by = "given" need each other: give both or neither')
    _check_rule(config.choice)
    if not loss.weights():
        raise InputError("loss.distill and loss.tag are both 0: nothing would be trained")


def _check_rule(choice: Choice) -> None:
    if choice.rule == Choice.rule:
        return
    from ttd.selection import find_rule

    rule = find_rule(choice.rule)
    if choice.by != "s_pixel" or "s_pixel" not in rule.scores:
        raise InputError(f"choice.rule = {choice.rule!r} is not a rule for choice.by = {choice.by!r}: leave one out")
    if rule.negatives:
        raise InputError(f'choice.rule = {choice.rule!r} compares with negative words: set choice.by = "negatives"')


def _read_toml(source: str | Path) -> dict[str, Any]:
    path = SHIPPED / f"{source}.toml"
    if not (isinstance(source, str) and source == Path(source).name and path.is_file()):
        path = Path(source)
    if not path.exists():
        shipped = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
        raise InputError(f"there is no config {source}: give a TOML file, or one of {shipped}")
    return read_toml(path)


def _split(override: str) -> tuple[str, str, Any]:
    """`section.name=value` -> its parts."""
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not equals or not dot:
        raise InputError(f"{override!r} is not an override: write section.name=value, such as optimiser.rate=1e-5")
    try:
        value = parse_toml(f"value = {text}")["value"]
    except Misfit:
        value = text.strip()
    return section, name, value


def _split_terms(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """The section `loss`: its own settings, and the weights of terms that other packages register."""
    own = {f.name for f in fields(Loss)} - {"others"}
    terms = {name for name in values if name not in own and name in LOSS_TERMS.names()}
    others = {name: _typed(f"loss.{name}", values[name], float) for name in sorted(terms)}
    return {name: value for name, value in values.items() if name not in terms}, others


_Section = TypeVar("_Section")


def _fill(section: _Section, label: str, values: Mapping[str, Any]) -> _Section:
    """A copy of a section with some values replaced, each of the declared type."""
    kinds = {name: kind for name, kind in typing.get_type_hints(type(section)).items() if name != "others"}
    filled = {}
    for name, value in values.items():
        if name not in kinds:
            raise InputError(f"unknown name {label}.{name} in the config{_close(name, kinds)}")
        filled[name] = _typed(f"{label}.{name}", value, kinds[name])
    return replace(section, **filled)  # type: ignore[type-var]


def _typed(name: str, value: Any, kind: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        allowed = typing.get_args(kind)
        if value not in allowed:
            raise InputError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        return value
    if kind == tuple[str, ...]:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{name} must be a list of texts, not {value!r}")
        return tuple(texts)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind or not _usable(value):
        expected = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
        raise InputError(f"{name} must be {expected}, not {value!r}")
    return value


def _usable(value: Any) -> bool:
    """Not NaN, infinite, a whole number beyond 64 bits, or half a character."""
    checks: dict[type, Schema] = {int: integer, float: number, str: any_text}
    try:
        checks.get(type(value), anything)(value)
    except Misfit:
        return False
    return True


def _close(name: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {close[0]}?" if close else f": known are {', '.join(known)}"
