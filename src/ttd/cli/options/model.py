"""The model, its settings, and where results go: the options of a model and of a protocol."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import VERBOSE_OPTION, Decorator, NameOf, clean_text, gathered, numbers_of
from ttd.inference.protocols import BY_NAMES, PROTOCOLS, options
from ttd.registry import DEVICES, DTYPES, LABEL_SCALES, METHODS, REFINERS

if TYPE_CHECKING:
    from ttd.inference.options import Options
    from ttd.inference.protocols import Task
    from ttd.model import TTD


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
        """Settings that affect the results, besides the base model's weights."""
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
        """The model; raises `TTDError` where it or an option is wrong, before any image is read."""
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
    """A threshold, "names", or words separated by semicolons; False for "none"; None where nothing was said."""
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
                f"{value!r} is not a number from 0 to 1, none, names or words separated by ; (one word: 'sky;').",
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


METHOD_OPTION = click.option("--method", type=NameOf(METHODS.names), help="How CLIP's blocks give maps.")
DEVICE_OPTION = click.option(
    "--device", metavar="NAME", help=f"{', '.join(DEVICES)} or cuda:1; by default cuda, else mps, else cpu."
)
SIZE_OPTION = click.option(
    "--size", type=click.IntRange(1), metavar="PIXELS", help="Short side to which images are resized."
)


def protocol_option(default: str | None = None) -> Decorator:
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
"""Options besides the name that choose the encoder."""
MODEL_OPTIONS = (
    *ENCODER_OPTIONS,
    click.option(
        "--text-cache/--no-text-cache",
        default=True,
        show_default=True,
        help="Whether embeddings of texts in many templates are kept in $TTD_CACHE.",
    ),
)
"""The options of `ModelChoice` besides its name."""

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
    VERBOSE_OPTION,
)

shared_options = gathered(Settings, "settings", _OPTIONS)
"""The options of `Settings`; the command gets them together as its argument `settings`."""
protocol_changes = gathered(ProtocolChanges, "changes", _CHANGES)
"""The options of `ProtocolChanges`; the command gets them together as its argument `changes`."""
_NAMED, _ANY = (
    click.option("--model", metavar="NAME", help="Short name, hub id, folder or file.", **more)
    for more in ({"required": True}, {"default": ""})
)
model_options = gathered(ModelChoice, "model", (_NAMED, *MODEL_OPTIONS))
"""The options that name a model; the command gets them together as its argument `model`."""
optional_model_options = gathered(ModelChoice, "model", (_ANY, *MODEL_OPTIONS))
"""As `model_options`, but `model.model` is "" where none is named."""
