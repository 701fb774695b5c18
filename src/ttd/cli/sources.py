"""What a command on images runs on: its argument and the options about it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import with_options
from ttd.errors import InputError

if TYPE_CHECKING:
    from ttd.data.items import ImageItem


@dataclass(frozen=True)
class ImageSelection:
    """What was named.

    Attributes:
        named: an image, a folder, a list, shards.
        images: the folder that a list's image paths start from; None: the list's own.
        every_caption: whether each caption of an image counts, not only its first.
    """

    named: str
    images: str | None = None
    every_caption: bool = False

    @property
    def is_one(self) -> bool:
        """Whether it is one image file."""
        from ttd.data.listing import names_one_image

        return names_one_image(self.named)

    def one(self, caption: str | None, tags: tuple[str, ...]) -> ImageItem:
        """The item of one image file."""
        from ttd.data.items import one_item

        if self.images is not None:
            raise InputError("--images is the folder of a list's images, and this is one image: leave it out.")
        return one_item(Path(self.named), caption, tags)

    def many(self, caption: str | None, tags: tuple[str, ...], out: str | None) -> list[ImageItem]:
        """All items, without those of an earlier run in `out`; see `ttd.data.items.open_items`."""
        from ttd.data.items import open_items

        return open_items(self.named, caption, tags, images=self.images, every_caption=self.every_caption, without=out)

    def question(self) -> dict[str, Any]:
        """For `run.json`: what decides which items there are."""
        from ttd.data.remote import is_address
        from ttd.runs import without_secrets

        images = None if self.images is None else str(Path(self.images).resolve())
        named = without_secrets(self.named) if is_address(self.named) else str(Path(self.named).resolve())
        return {"source": named, "images": images, "every_caption": self.every_caption}


def source_options(*, captions: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the argument and its options; the command gets them together as its argument `source`.

    Args:
        captions: whether the command is about captions.
    """
    options = [
        click.argument("image"),
        click.option("--images", metavar="DIR", help="Where a list's image paths start from; by default its folder."),
    ]
    if captions:
        help_text = "Take each caption of an image, not only its first."
        options.append(click.option("--every-caption", is_flag=True, help=help_text))

    def added(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(image: str, images: str | None, every_caption: bool = False, **given: Any) -> Any:
            return function(source=ImageSelection(image, images, every_caption), **given)

        return with_options(options, command)

    return added
