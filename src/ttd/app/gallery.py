"""Several images at once: a gallery of their caption's maps and words, and the table of all scores as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ttd.app.answers import PageAnswer, Question, answer
from ttd.app.html import PANEL, escaped, figure, img, notice
from ttd.app.models import ModelPool
from ttd.errors import InputError, TTDError
from ttd.viz.overlays import heatmap_overlay

MOST_IMAGES = 50
FORM = (
    '<div class="ttd-many"><label>Images, up to 50 <input type="file" multiple accept="image/*"></label>'
    "<label>Captions: one for all, or a line for each image in the order of their names"
    '<textarea rows="3"></textarea></label>'
    '<button data-do="many">Show all</button> <span role="status" data-part="sent"></span></div>'
)
# Each image is sent by itself: then none exceeds what an upload may have.
SCRIPT = f"""element.addEventListener('click', async (event) => {{
  const button = event.target.closest('button');
  if (!button) return;
  const files = [...element.querySelector('input').files].sort((a, b) => a.name.localeCompare(b.name));
  const said = element.querySelector('[data-part=sent]');
  if (!files.length || files.length > {MOST_IMAGES}) {{
    said.textContent = files.length ? 'Choose at most {MOST_IMAGES} images.' : 'Choose images first.';
    return;
  }}
  button.disabled = true;
  const sent = [];
  try {{
    for (const file of files) {{
      said.textContent = `Sending image ${{sent.length + 1}} of ${{files.length}} …`;
      sent.push({{name: file.name, path: (await upload(file)).path}});
    }}
    said.textContent = '';
    trigger('submit', {{files: sent, captions: element.querySelector('textarea').value}});
  }} catch (error) {{
    said.textContent = `Image ${{sent.length + 1}} was not taken: it may be larger than this page takes.`;
  }}
  button.disabled = false;
}});"""


@dataclass(frozen=True)
class Sent:
    """An image that was sent, by its name on the visitor's machine, and its caption."""

    name: str
    path: Path
    caption: str


def sent_images(given: Any, folder: Path) -> list[Sent]:
    """What a browser asks about: images in `folder`, each with its caption.

    Args:
        given: {"files": [{"name", "path"}, ...], "captions": text}.
        folder: of uploads.

    Raises:
        InputError: none or too many images, a file from elsewhere, or another number of captions.
    """
    files = given.get("files") if isinstance(given, Mapping) else None
    if not isinstance(files, list) or not 0 < len(files) <= MOST_IMAGES:
        raise InputError(f"Choose 1 to {MOST_IMAGES} images.")
    lines = [line.strip() for line in str(given.get("captions", "")).splitlines() if line.strip()]
    if len(lines) not in (1, len(files)):
        raise InputError(
            f"There are {len(files)} images and {len(lines)} captions: write one for all, or one for each."
        )
    found = []
    for file, caption in zip(files, lines if len(lines) > 1 else lines * len(files), strict=True):
        path = Path(str(file.get("path", ""))) if isinstance(file, Mapping) else Path()
        # The path comes from the browser: what is not an upload is not opened.
        if not path.is_absolute() or path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
            raise InputError("This image was not uploaded to this page: choose it again.")
        found.append(Sent(str(file.get("name", path.name)), path, caption))
    return found


def gallery(pool: ModelPool, images: Sequence[Sent], settings: Question) -> Iterator[tuple[str, str]]:
    """After each image the gallery so far as HTML, and at the end (else "") the table as CSV.

    An image that cannot be used is a sentence in its place.
    """
    cards: list[str] = []
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("image", "caption", "word", "score", "selected", "notice"))
    for number, one in enumerate(images, 1):
        try:
            found = answer(pool, replace(settings, path=str(one.path), caption=one.caption, tags=""))
        except TTDError as error:
            cards.append(f"<figure>{notice(str(error).replace(one.path.name, one.name), 'error')}</figure>")
            rows.writerow((_cell(one.name), _cell(one.caption), "", "", "", str(error)))
        else:
            cards.append(_card(one, found))
            assert found.words is not None
            for word in found.words.tagging.distinct():
                said = (_cell(word.text), f"{word.score:.6f}", int(word.selected), found.notice or "")
                rows.writerow((_cell(one.name), _cell(one.caption), *said))
        head = notice(f"{number} of {len(images)} images")
        done = number == len(images)
        yield f'{head}<div class="ttd-grid">{"".join(cards)}</div>', table.getvalue() if done else ""


def _card(one: Sent, found: PageAnswer) -> str:
    drawn = heatmap_overlay(found.image, found.captions[-1].heat, side=PANEL, enlarge=True)
    assert found.words is not None
    words = ", ".join(found.words.tagging.selected) or "no word"
    warning = f'<p class="ttd-hint">⚠ {escaped(found.notice)}</p>' if found.notice else ""
    text = f'<p class="ttd-hint">{escaped(one.caption)}: <b>{escaped(words)}</b></p>{warning}'
    return f"<div>{figure(img(drawn, f'where the caption is: {one.caption}'), one.name)}{text}</div>"


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text
