"""`ttd app`: the web page."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import VERBOSE_OPTION, gathered
from ttd.cli.options.model import ADAPTER_OPTION, ENCODER_OPTIONS
from ttd.errors import InputError

if TYPE_CHECKING:
    from ttd.app.access import Access
    from ttd.app.models import ModelPool

PASSWORD_VARIABLE = "TTD_APP_PASSWORD"


@dataclass(frozen=True)
class AppOptions:
    """What `ttd app` was asked for: the models and how they compute, what is annotated, and who can reach the page."""

    models: tuple[str, ...]
    adapters: tuple[str, ...]
    adapter_scale: float
    method: str | None
    calibration: str | None
    proxy_model: str | None
    device: str | None
    dtype: str | None
    sam_model: str | None
    examples: str | None
    annotate: str | None
    images: str | None
    every_caption: bool
    out: str | None
    host: str
    port: int
    public: bool
    root_path: str | None
    embed: tuple[str, ...]
    user: str | None
    password_file: str | None
    space: str | None
    verbose: bool

    def check(self) -> None:
        """Raises `InputError` where options do not fit together."""
        if self.public and self.user is not None:
            raise InputError(
                "--public allows access without a password, and --user asks for one: leave one of them out"
            )
        if (self.annotate is None) != (self.out is None):
            raise InputError("--annotate names the images and --out the folder of the set: give both or neither")
        if self.annotate is None and (self.images is not None or self.every_caption):
            raise InputError("--images and --every-caption are about what is annotated: name that with --annotate")

    def access(self) -> Access:
        """Where the page is served and to whom; asks for a password where one is needed."""
        from ttd.app.access import Access

        password = _password(self.user, self.password_file)
        return Access(self.host, self.port, self.user, password, self.root_path, self.public, self.embed)

    def encoder(self) -> dict[str, Any]:
        """How a model is loaded: options of `ttd.load`."""
        names = ("adapter_scale", "method", "calibration", "device", "dtype")
        found = {name: getattr(self, name) for name in names}
        if self.method is not None and self.proxy_model is not None:
            from ttd.encoders.methods import find_method

            # The page's other methods may need the second backbone that the first one does without.
            needs = find_method(self.method).second_backbone is not None
            found["proxy_model"] = self.proxy_model if needs else None
        return found


# --adapter is the page's own: there it may be named several times, and is chosen on the page.
_OPTIONS = (
    click.option(
        "--model",
        "models",
        multiple=True,
        default=("mini",),
        show_default=True,
        metavar="NAME",
        help="A model to choose on the page (short name, hub id, folder or file); may be repeated.",
    ),
    click.option(
        "--adapter",
        "adapters",
        multiple=True,
        metavar="NAME",
        help="A LoRA adapter to choose on the page; may be repeated.",
    ),
    *(option for option in ENCODER_OPTIONS if option is not ADAPTER_OPTION),
    click.option("--sam-model", metavar="NAME", help="SAM-HQ, as a refinement and to propose masks to annotate."),
    click.option(
        "--examples", metavar="DIR", help="A folder of images with captions (NAME.txt) to try, in place of the scenes."
    ),
    click.option("--annotate", metavar="DATA", help="What to annotate: a folder of images, shards or a captions file."),
    click.option("--images", metavar="DIR", help="Where the paths of --annotate's captions file start from."),
    click.option("--every-caption", is_flag=True, help="Annotate all captions of an image, not only its first."),
    click.option("--out", metavar="TAGMASKSET", help="Where annotations go, with --annotate."),
    click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to serve the page."),
    click.option("--port", type=click.IntRange(1, 65535), default=7860, show_default=True, help="Its port."),
    click.option("--public", is_flag=True, help="Let everybody in who can reach --host, without a password."),
    click.option(
        "--root-path",
        metavar="PLACE",
        help="Where a proxy serves the page: /path or https://name/path; its X-Forwarded-For then counts.",
    ),
    click.option(
        "--embed", multiple=True, metavar="ORIGIN", help="A site that may show the page in a frame; may be repeated."
    ),
    click.option(
        "--user", metavar="NAME", help="Ask visitors for this user and a password; needed with another --host."
    ),
    click.option(
        "--password-file",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help=f"Its first line is the password; else {PASSWORD_VARIABLE} is, else it is asked for.",
    ),
    click.option("--space", metavar="FOLDER", help="Write a folder for a Hugging Face Space, and serve nothing."),
    VERBOSE_OPTION,
)


@click.command()
@gathered(AppOptions, "given", _OPTIONS)
def app(given: AppOptions) -> None:
    """Open a web page: words, maps and masks of your images.

    \b
    ttd app                                        (http://127.0.0.1:7860/)
    ttd app --model clip-vit-b16 --adapter runs/paper
    ttd app --annotate photos/ --out my-tagmask    (captions: photos/NAME.txt, or typed on the page)
    ttd app --host 0.0.0.0 --user anna             (asks for a password)
    ttd app --space my-space                       (a folder to push to a Hugging Face Space)

    Only the models, adapters and second backbones (--proxy-model PROXY,SAM) named here can be chosen on the page.
    """
    given.check()
    adapters = given.adapters
    if given.models == ("mini",) and not adapters and given.annotate is None:
        adapters = ("mini+ttd", "mini+negatives")  # so that the page can show before and after at once
    if given.space is not None:
        from ttd.app.space import write_space

        click.echo(write_space(Path(given.space), given.models, given.adapters))
        return
    access = given.access()
    access.check_free()
    pool = _pool(given.models, adapters, given.sam_model, given.proxy_model, given.encoder())
    annotate = {"data": given.annotate, "out": given.out, "images": given.images, "sam": given.sam_model}
    _serve(pool, access, given.examples, {**annotate, "every_caption": given.every_caption} if given.annotate else None)


def _pool(
    models: tuple[str, ...],
    adapters: tuple[str, ...],
    sam_model: str | None,
    proxy_model: str | None,
    encoder: dict[str, Any],
) -> ModelPool:
    """The models, the first of them and second backbones loaded: a wrong name ends the command before a page opens."""
    import ttd
    from ttd.app.models import ModelPool, PageChoices

    choices = PageChoices.of(models, adapters, sam_model, proxy_model)
    pool = ModelPool(choices, lambda name, adapter: ttd.load(name, adapter=adapter, **encoder))
    first = next(iter(choices.models))
    takes_method = pool.get(first, "").ttd.encoder.takes_method
    for name in choices.methods[1:] if takes_method and proxy_model is not None else ():
        if choices.method(name).second_backbone is not None:
            with pool.use(first, "", name) as used:
                used.ttd.encoder.second_backbone()  # type: ignore[operator]
    return pool


def _serve(pool: ModelPool, access: Access, examples: str | None, annotate: dict[str, Any] | None) -> None:
    from ttd.app.server import page

    annotations = None
    if annotate is not None:
        from ttd.annotate.annotation_set import AnnotationSet

        choices = pool.choices
        loaded = pool.get(next(iter(choices.models)), next(iter(choices.adapters), ""))
        annotations = AnnotationSet.from_data(loaded.ttd, **annotate, model_lock=loaded.lock)
    with page(pool, access, annotations, examples) as address:
        click.echo(f"The page is at {address} (stop it with Ctrl-C).")
        sys.stdout.flush()
        threading.Event().wait()


def _password(user: str | None, file: str | None) -> str | None:
    """The password, from a file, the environment or the terminal: on the command line `ps` would show it."""
    if user is None:
        if file is not None:
            raise InputError("a password needs a user: name one with --user")
        return None
    if file is not None:
        lines = Path(file).read_text("utf-8", "replace").splitlines()
        return lines[0] if lines else ""
    given = os.environ.pop(PASSWORD_VARIABLE, None)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise InputError(
            f"there is no password for {user}: put it into {PASSWORD_VARIABLE} or a file named with --password-file"
        )
    return str(click.prompt(f"Password for {user}", hide_input=True, confirmation_prompt=True, err=True))
