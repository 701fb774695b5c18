"""The options that all commands on images share, and the `Settings` they become."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.output import say
from ttd.inference.protocols import BY_NAMES, PROTOCOLS, options
from ttd.registry import DEVICES, DTYPES, LABEL_SCALES, METHODS, REFINERS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ttd.inference.options import Options
    from ttd.inference.protocols import Task
    from ttd.model import TTD


class NameOf(click.ParamType[str]):
    """One of the names that a registry knows when the help or a value asks for them.

    Args:
        names: gives them, those of other packages too.
    """

    name = "name"

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self.names = names

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """As `click.Choice`."""
        return self._choice.get_metavar(param, ctx)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name; fails where there is none."""
        return self._choice.convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """As `click.Choice`."""
        return self._choice.shell_complete(ctx, param, incomplete)

    @property
    def _choice(self) -> click.Choice[str]:
        return click.Choice(list(self.names()))


@dataclass(frozen=True)
class ModelChoice:
    """Which model answers."""

    model: str
    adapter: str | None
    adapter_scale: float
    method: str | None
    proxy_model: str | None
    calibration: str | None
    device: str | None
    dtype: str | None
    text_cache: bool

    def load(self) -> TTD:
        """The model; under torchrun every process takes the accelerator of its own number."""
        import torch

        import ttd

        device, local = self.device, os.environ.get("LOCAL_RANK")
        if device is None and local is not None and torch.cuda.is_available():
            device = f"cuda:{local}"
        return ttd.load(
            self.model,
            adapter=self.adapter,
            adapter_scale=self.adapter_scale,
            method=self.method,
            proxy_model=self.proxy_model,
            calibration=self.calibration,
            device=device,
            dtype=self.dtype,
            text_cache=self.text_cache,
        )

    @property
    def own_protocol(self) -> str:
        """Of the method as far as it is named; what a model's own card says is known once it is loaded."""
        from ttd.encoders.methods import find_method

        return find_method(self.method).protocol if self.method else "paper"

    def settings(self) -> dict[str, Any]:
        """What decides the results beside the base model's weights."""
        return {
            "adapter": self.adapter,
            "adapter_scale": self.adapter_scale if self.adapter else None,
            "method": self.method,
            "proxy_model": self.proxy_model,
            "calibration": calibration_values(self.calibration),
            "dtype": self.dtype,
        }


@dataclass(frozen=True)
class ProtocolChanges:
    """Single values in place of a protocol's, by the names of `ttd.Options`; None leaves it to the protocol."""

    size: int | None
    window: int | None
    stride: int | None
    scales: tuple[float, ...] | None
    flip: bool | None
    templates: str | None
    background: float | bool | str | tuple[str, ...] | None
    refine: str | None
    sam_model: str | None
    pamr_steps: int | None
    pamr_dilations: tuple[int, ...] | None
    pamr_grid: str | None
    logit_scale: float | None
    prob_threshold: float | None
    area_threshold: float | None
    label_scale: str | None

    def changes(self) -> dict[str, Any]:
        """Those that were given."""
        values = {field.name: getattr(self, field.name) for field in fields(ProtocolChanges)}
        given = {name: value for name, value in values.items() if value is not None}
        return {**given, "window": None} if self.window == WHOLE else given


@dataclass(frozen=True)
class Settings(ProtocolChanges, ModelChoice):
    """What a command on images was asked for; None leaves it to the protocol or the model."""

    protocol: str | None
    out: str | None
    as_json: bool
    batch: int
    verbose: bool

    def load(self) -> TTD:
        """The model; raises `TTDError` where it or an option is wrong, before an image is looked at."""
        self.options("masks")
        return super().load()

    def options(self, task: Task, **changes: Any) -> Options:
        """The protocol's options for one kind of question, with those that were given."""
        return options(self.protocol, task, **self.changes(), **changes)

    def resolved(self) -> dict[str, Any]:
        """What decides the results: a run continues only where these are the same."""
        kept = asdict(self)
        for name in ("out", "as_json", "batch", "verbose", "device", "text_cache"):
            del kept[name]
        kept["calibration"] = calibration_values(self.calibration)
        return kept


def calibration_values(path: str | None) -> dict[str, float] | None:
    """What decides results about `--calibration FILE`: its numbers; None where the model's own are taken."""
    if path is None:
        return None
    from ttd.encoders.calibration import read_calibration

    return read_calibration(path)[0].to_dict()


WHOLE = 0  # `--window none`


def background_or_none(
    ctx: click.Context, parameter: click.Parameter, value: str | None
) -> float | bool | str | tuple[str, ...] | None:
    """A threshold, "names", or words apart by semicolons; False for "none"; None where nothing was said."""
    if value is None or value == "none":
        return None if value is None else False
    if value == BY_NAMES:
        return value
    try:
        number = float(value)
    except ValueError:
        words = tuple(word.strip() for word in clean_text(value).split(";") if word.strip())
        if ";" not in value or not words:
            raise click.BadParameter(
                f"{value!r} is neither a number from 0 to 1 nor none, names or words apart by ; (one word: 'sky;').",
                ctx,
                parameter,
            ) from None
        return words
    if not 0.0 <= number <= 1.0:
        raise click.BadParameter(f"{value!r} is not a number from 0 to 1.", ctx, parameter)
    return number


def window_or_none(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A number of pixels; `WHOLE` for "none"; None where nothing was said."""
    if value is None or value == "none":
        return None if value is None else WHOLE
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number of pixels from 1 nor none.", ctx, parameter)
    return int(value)


def numbers_of(kind: type[int] | type[float]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A callback for numbers apart by commas."""

    def parse(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            return tuple(kind(part) for part in value.split(","))
        except ValueError:
            what = "whole numbers" if kind is int else "numbers"
            raise click.BadParameter(f"{value!r} is not {what} apart by commas.", ctx, parameter) from None

    return parse


METHOD_OPTION = click.option("--method", type=NameOf(METHODS.names), help="How CLIP's blocks give maps.")
DEVICE_OPTION = click.option(
    "--device", metavar="NAME", help=f"{', '.join(DEVICES)} or cuda:1; by default cuda, else mps, else cpu."
)
SIZE_OPTION = click.option(
    "--size", type=click.IntRange(1), metavar="PIXELS", help="Short side to which images are resized."
)


def protocol_option(default: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--protocol`; `default` is a name, or says in words where none is taken from."""
    about = "; ".join(f"{name}: {protocol.source}" for name, protocol in PROTOCOLS.items())
    named = default if default in PROTOCOLS else None
    return click.option(
        "--protocol",
        type=NameOf(lambda: PROTOCOLS),
        default=named,
        show_default=default or False,
        help=f"Published settings. {about}.",
    )


_CHANGES = (
    SIZE_OPTION,
    click.option(
        "--window", callback=window_or_none, metavar="PIXELS|none", help="Side of the sliding window; none: the whole."
    ),
    click.option(
        "--stride", type=click.IntRange(1), metavar="PIXELS", help="Step of the window; with --window alone half of it."
    ),
    click.option("--scales", callback=numbers_of(float), metavar="X,Y", help="Multiples of the size: 1,0.5,2."),
    click.option("--flip/--no-flip", default=None, help="Look at each scale mirrored too."),
    click.option("--templates", metavar="NAME", help="Around classes and captions: openai80, tcl9, none, 'a {}' ..."),
    click.option(
        "--background",
        callback=background_or_none,
        metavar="0..1|none|names|WORDS",
        help="Threshold below which a pixel is background, by default the model's; or words for it ('sky; wall'); "
        "names: those of the class list.",
    ),
    click.option("--refine", type=NameOf(REFINERS.choices), help="How maps are refined; auto: the model's own way."),
    click.option("--sam-model", metavar="NAME", help="The SAM-HQ model of --refine sam: short name, hub id or folder."),
    click.option("--pamr-steps", type=click.IntRange(0), metavar="N", help="Rounds of PAMR."),
    click.option(
        "--pamr-dilations", callback=numbers_of(int), metavar="N,N", help="Distances of PAMR in pixels: 8,16."
    ),
    click.option(
        "--pamr-grid",
        type=click.Choice(["quarter", "image"]),
        help="Where PAMR works: a quarter of the size that the model sees, or the image's own size.",
    ),
    click.option("--logit-scale", type=float, metavar="X", help="Of the softmax over all texts."),
    click.option(
        "--prob-threshold",
        type=click.FloatRange(0.0, 1.0),
        help="Background where no share of that softmax reaches it.",
    ),
    click.option(
        "--area-threshold", type=click.FloatRange(0.0, 1.0), help="Classes with at most this share of pixels get none."
    ),
    click.option(
        "--label-scale",
        type=click.Choice(LABEL_SCALES),
        help="What maps compare by; norm: each from its lowest to its highest value; norm-patches: of its patches.",
    ),
)
"""The options of `ProtocolChanges`."""
ADAPTER_OPTION = click.option("--adapter", metavar="NAME", help="LoRA adapter: a folder, a file or a short name.")
ENCODER_OPTIONS = (
    ADAPTER_OPTION,
    click.option(
        "--adapter-scale",
        type=click.FloatRange(0.0),
        default=1.0,
        show_default=True,
        help="Weight of the adapter.",
    ),
    METHOD_OPTION,
    click.option("--proxy-model", metavar="NAME", help="Second backbone of a method that has one: hub id or folder."),
    click.option("--calibration", metavar="FILE", help="Of `ttd calibrate`, in place of the model's own."),
    DEVICE_OPTION,
    click.option("--dtype", type=click.Choice(DTYPES), help="Number format of the encoder."),
)
"""What decides, beside its name, which encoder answers."""
MODEL_OPTIONS = (
    *ENCODER_OPTIONS,
    click.option(
        "--text-cache/--no-text-cache",
        default=True,
        show_default=True,
        help="Whether embeddings of texts in many templates are kept in $TTD_CACHE.",
    ),
)
"""The options of `ModelChoice` beside its name."""

_NAME = "Short name, hub id, folder or file."
_OPTIONS = (
    click.option(
        "--model",
        default="mini",
        show_default=True,
        metavar="NAME",
        help="Short name (see `ttd models`), hub id, folder or file.",
    ),
    *MODEL_OPTIONS,
    protocol_option(),
    *_CHANGES,
    click.option(
        "--out",
        metavar="PATH",
        help="A PNG file or a folder for images; for many, a folder, or FILE.jsonl for results alone.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Results as JSON (one line per image)."),
    click.option(
        "--batch",
        type=click.IntRange(1),
        default=16,
        show_default=True,
        help="Images at once, where there are many.",
    ),
    click.option("--verbose", "-v", is_flag=True, help="Say more on stderr."),
)


def with_options(options: Iterable[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with options, in their order in the help."""
    for option in reversed(list(options)):
        command = option(command)
    return command


def gathered(
    kind: type[Any], argument: str, options: Iterable[Callable[..., Any]], function: Callable[..., Any]
) -> Callable[..., Any]:
    """A command with options, which it gets together in one argument; `--verbose` among them starts the log.

    Args:
        kind: a dataclass with a field for each option.
        argument: its name in the command's function.
        options: of the command line.
        function: the command's.
    """

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        found = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        if getattr(found, "verbose", None) is not None:
            start_logging(found.verbose)
        return function(**{argument: found}, **given)

    return with_options(options, command)


def shared_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the shared options; the command gets them together as its argument `settings`."""
    return gathered(Settings, "settings", _OPTIONS, function)


def protocol_changes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of `ProtocolChanges`; the command gets them together as its argument `changes`."""
    return gathered(ProtocolChanges, "changes", _CHANGES, function)


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that name a model; the command gets them together as its argument `model`."""
    named = click.option("--model", required=True, metavar="NAME", help=_NAME)
    return gathered(ModelChoice, "model", (named, *MODEL_OPTIONS), function)


def optional_model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `model_options`, but `model.model` is "" where none is named."""
    named = click.option("--model", default="", metavar="NAME", help=_NAME)
    return gathered(ModelChoice, "model", (named, *MODEL_OPTIONS), function)


def start_logging(verbose: bool) -> None:
    """The package's log goes to stderr: warnings, with `verbose` also what it is doing."""
    logger = logging.getLogger("ttd")
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    click.get_current_context().call_on_close(lambda: logger.removeHandler(handler))


class _Stderr(logging.Handler):
    """The package's log on stderr, above any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; what goes wrong is logging's to tell."""
        try:
            say(self.format(record), err=True)
        except Exception:
            self.handleError(record)


class ListCommand(click.Command):
    """A command whose options named in `lists` take all words that follow: `--tags dog "traffic light"
    sky`.

    The list ends at the next option or at `--`. Repeating the option and commas work too; an element that
    begins with a dash is written `--tags=-x`.
    """

    lists = ("--tags",)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeats a list option before each of its words, which is the form that click knows."""
        plain: list[str] = []
        current: str | None = None
        for number, word in enumerate(args):
            if word == "--":
                plain += args[number:]
                break
            if word in self.lists:
                current = word
                if number + 1 == len(args) or args[number + 1].startswith("-"):
                    raise click.UsageError(f"{word} needs at least one word after it.", ctx)
            elif word.startswith("-") and word != "-":
                current = None
                plain.append(word)
            else:
                plain += [current, word] if current else [word]
        return super().parse_args(ctx, plain)


def tag_list(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a list option, with commas taken apart and empty ones left out."""
    return tuple(part.strip() for value in values for part in clean_text(value).split(",") if part.strip())


def clean_text(text: str) -> str:
    """An argument of the command line as valid Unicode: bytes that were no UTF-8 become replacement marks."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
