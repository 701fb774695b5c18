"""What a run does: dataclasses, read from TOML, overridden by `key=value`. Defaults are the paper's recipe
(Table 6); what the paper does not say is marked "ours" and stands for doing nothing.
"""

from __future__ import annotations

import difflib
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from ttd.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Model:
    """The base model.

    Attributes:
        name: short name, folder, file or hub id.
        variant: preset of the last vision block; "" takes the model's own.
        rank: of the low-rank updates.
        alpha: updates are scaled by alpha / rank; 0 stands for the rank.
        dropout: in 0..1, of the low-rank updates' input.
        towers: which towers are adapted.
        kept: share of the update that the finished adapter keeps; below 1 its weights lie between the base and
            what was trained (ours).
    """

    name: str = "mini"
    variant: str = ""
    rank: int = 10
    alpha: float = 0.0
    dropout: float = 0.0
    towers: Literal["both", "image", "text"] = "both"
    kept: float = 1.0


@dataclass(frozen=True)
class Data:
    """The pairs.

    Attributes:
        sources: tar shards (brace ranges too), folders, captions files.
        images: the folder that a captions file's picture paths start from; "": the file's own.
        keep: keep-list of `ttd prune` (Parquet); "" keeps all.
        tags: what `ttd data tag` wrote, for the choice "given"; "inside": the words that the shards carry.
        captions: of several captions of a picture, one drawn anew each epoch, or all together (ours).
        tokenised: captions are split at white space only, as CC3M's may be.
        stop_words: keep stop words among the candidates, as the paper does.
        workers: processes that read and augment; 0 does it in the main process.
        most_damaged: share of damaged samples, 0..1, above which the run stops.
    """

    sources: tuple[str, ...] = ()
    images: str = ""
    keep: str = ""
    tags: str = ""
    captions: Literal["one", "together"] = "one"
    tokenised: bool = False
    stop_words: bool = True
    workers: int = 0
    most_damaged: float = 0.1


@dataclass(frozen=True)
class Augment:
    """The pixels.

    Attributes:
        shortest, longest: the longer side is resized to a random length between them, in pixels.
        crop: side of the random crop; smaller pictures are padded with the mean colour.
        flip: share of pictures that are mirrored.
    """

    shortest: int = 320
    longest: int = 640
    crop: int = 448
    flip: float = 0.0


@dataclass(frozen=True)
class Choice:
    """Which words of a caption are selected.

    Attributes:
        by: "s_pixel" (the paper's), "s_image", "nouns" (a parser's), "given" (words of the data), or
            "borrowed": those that beat `share` of the borrowed words (ours).
        model: the current one, or the frozen base (ours).
        threshold: for "s_image", on the softmax over the caption's words.
        share: for "borrowed", in 0..1.
        parser: for "nouns".
    """

    by: Literal["s_pixel", "s_image", "nouns", "given", "borrowed"] = "s_pixel"
    model: Literal["current", "frozen"] = "current"
    threshold: float = 0.5
    share: float = 0.9
    parser: Literal["spacy", "nltk"] = "spacy"


@dataclass(frozen=True)
class Loss:
    """The losses.

    Attributes:
        distill, tag: weights of L_distill and L_tag; 0 switches one off (Table 5).
        mean: L_tag as a mean over the words in place of the sum (ours).
        maps: raw cosines, or the encoder's calibrated maps (TCL).
        borrowed: how many words of other captions of the batch each picture gets as unselected words (ours).
        borrowed_weight: of each of them in L_tag.
        relative: train how far maps exceed the mean of the borrowed words' maps, and captions' maps that of the
            batch's other captions, in every cell; what is below is a target of 0 (ours).
        rank: weight of `ttd.losses.l_rank`: selected words shall score above borrowed ones (ours).
        floor: the quantile of the borrowed words' scores that is a target's zero; -1: the map's own minimum.
        compared: how many borrowed words a picture is compared with, for `relative`, `rank`, `floor` and the
            choice "borrowed".
    """

    distill: float = 1.0
    tag: float = 1.0
    mean: bool = False
    maps: Literal["raw", "calibrated"] = "raw"
    borrowed: int = 0
    borrowed_weight: float = 1.0
    relative: bool = False
    rank: float = 0.0
    floor: float = -1.0
    compared: int = 64


@dataclass(frozen=True)
class Optimiser:
    """AdamW and its schedule.

    Attributes:
        rate: learning rate.
        weight_decay: AdamW's.
        batch: pairs per step over all devices.
        micro_batch: pairs per forward pass of one device; 0: all of its share. Smaller: gradients accumulate.
        epochs: passes over the data.
        steps: end after so many steps, whatever `epochs` says; 0: no.
        schedule: after the warm-up.
        warmup: steps of linear warm-up.
        clip: largest norm of the gradient; 0: not clipped.
    """

    rate: float = 1e-4
    weight_decay: float = 5e-5
    batch: int = 32
    micro_batch: int = 0
    epochs: int = 1
    steps: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    clip: float = 0.0


@dataclass(frozen=True)
class Run:
    """How the run goes.

    Attributes:
        seed: of the order, the augmentation, the adapter's start.
        deterministic: ask torch for deterministic algorithms only.
        precision: of the towers under autocast; losses are always in float32.
        device: "" takes CUDA where there is one.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: how many are kept.
        log_every: steps between lines of the log.
        watch_every: steps between pictures of fixed samples; 0: none.
        watch_samples: how many.
        tensorboard: also write its event files.
        gradient_checkpointing: recompute blocks in the backward pass: slower, less memory.
        compile: `torch.compile` every block.
    """

    seed: int = 0
    deterministic: bool = False
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    device: str = ""
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    log_every: int = 10
    watch_every: int = 500
    watch_samples: int = 4
    tensorboard: bool = False
    gradient_checkpointing: bool = False
    compile: bool = False


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
        return asdict(self)


def read_config(source: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a shipped config by name ("paper", "mini"), a TOML file, or None for the defaults.

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
        ("loss.borrowed", loss.borrowed, 0),
        ("loss.compared", loss.compared, 1),
        ("loss.rank", loss.rank, 0),
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
        ("choice.share", config.choice.share),
        ("choice.threshold", config.choice.threshold),
        ("data.most_damaged", config.data.most_damaged),
        ("model.dropout", config.model.dropout),
        ("model.kept", config.model.kept),
    ):
        if not 0 <= share <= 1:
            raise InputError(f"{name} must lie in 0..1, not {share}")
    if augment.shortest > augment.longest:
        raise InputError(f"augment.shortest ({augment.shortest}) exceeds augment.longest ({augment.longest})")
    if loss.floor > 1 or (loss.floor < 0 and loss.floor != -1):
        raise InputError(f"loss.floor must lie in 0..1, or be -1 for none, not {loss.floor}")
    if loss.relative and loss.floor >= 0:
        raise InputError("loss.relative has a zero of its own: leave out loss.floor")
    if (config.choice.by == "given") != bool(config.data.tags):
        raise InputError('data.tags and choice.by = "given" need each other: give both or neither')
    if loss.distill == 0 and loss.tag == 0:
        raise InputError("loss.distill and loss.tag are both 0: nothing would be trained")


def _read_toml(source: str | Path) -> dict[str, Any]:
    path = SHIPPED / f"{source}.toml"
    if not (isinstance(source, str) and source.isidentifier() and path.is_file()):
        path = Path(source)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        shipped = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
        raise InputError(f"there is no config {source}: give a TOML file, or one of {shipped}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error


def _split(override: str) -> tuple[str, str, Any]:
    """`section.name=value` -> its parts."""
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not equals or not dot:
        raise InputError(f"{override!r} is no override: write section.name=value, such as optimiser.rate=1e-5")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return section, name, value


_Section = TypeVar("_Section")


def _fill(section: _Section, label: str, values: Mapping[str, Any]) -> _Section:
    """A copy of a section with some values replaced, each of the declared type."""
    kinds = typing.get_type_hints(type(section))
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
    if type(value) is not kind:
        expected = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
        raise InputError(f"{name} must be {expected}, not {value!r}")
    return value


def _close(name: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {close[0]}?" if close else f": known are {', '.join(known)}"
