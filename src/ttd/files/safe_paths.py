"""Names and paths that come from a file: valid file names, and paths inside a folder.

Annotated sets, data sets and models are passed on between people. An id, word or path in one of their
files becomes a path of this machine only by way of this module:

- a *name* is one part of a path, the same on every file system: of what is written (`check_name`, `word_file`,
  `file_part`, `item_id`);
- a *path* leads from a folder to a file in it, with subfolders, for reading (`check_path`, `file_below`);
- `inside` is where something is written or removed: nowhere else than below a folder, and through no link.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from ttd.errors import InputError

ID_BYTES = 200  # of an id: endings and the names of temporary files still fit into NAME_BYTES
NAME_BYTES = 255  # of one part of a path, on all common file systems
_PATH_BYTES = 1000
_WORD_BYTES = 120
_DEVICES = re.compile(r"(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³])(\..*)?", re.IGNORECASE)
_FORBIDDEN = frozenset('<>:"|?*\\/')  # on Windows, where they mean something else
_DRIVE = re.compile(r".:", re.DOTALL)  # Windows takes any character before the colon for a drive
_ESCAPE = re.compile("%(?=[0-9A-Fa-f]{2})")
_isjunction: Callable[[Path], bool] = getattr(os.path, "isjunction", lambda path: False)


def name_fault(name: object, most: int = ID_BYTES) -> str | None:
    """Why something cannot be a file's name of at most `most` bytes on every file system; None where it can."""
    if not isinstance(name, str) or not name.strip():
        return _no_text(name)
    if not name.strip(" .") or set(name) & {"/", "\\"} or _DRIVE.match(name):
        return "is a path and no name"
    if set(name) & _FORBIDDEN or any(_is_control(char) for char in name):
        return "holds a character that file names cannot have"
    if name[0] == "." or name[-1] in " .":
        return "begins with a dot, or ends in a dot or a space"
    if _DEVICES.fullmatch(name):
        return "is the name of a device on Windows"
    return _encoding_fault(name, most)


def check_name(name: object, where: object, what: str = "id") -> str:
    """A text that is to be a file's name, as it is.

    Args:
        name: as in the file.
        where: the file, or a line of it.
        what: it is.

    Raises:
        InputError: see `name_fault`.
    """
    if fault := name_fault(name):
        raise InputError(f"{where}: the {what} {_shown(name)} {fault}, so it cannot name a file: change it")
    return str(name)


def path_fault(text: object, most: int = NAME_BYTES) -> str | None:
    """Why a text cannot be the path from a folder to a file in it; None where it can.

    Both slashes part it, so that a list is judged alike on every system; `most` bytes are allowed in one part.
    """
    if not isinstance(text, str) or not text.strip():
        return _no_text(text)
    if any(_is_control(char) for char in text):
        return "holds a character that file names cannot have"
    parts = re.split(r"[/\\]", text)
    # Windows takes a part of dots and spaces for "..".
    if not parts[0] or _DRIVE.match(text) or any(part and part != "." and not part.strip(" .") for part in parts):
        return "leads out of its folder"
    if all(part in ("", ".") for part in parts):
        return "names no file"
    if os.name == "nt" and any(_DEVICES.fullmatch(part) for part in parts):
        return "is the name of a device on Windows"
    return next((fault for part in parts if (fault := _encoding_fault(part, most))), _encoding_fault(text, _PATH_BYTES))


def check_path(text: object, where: object, what: str = "path", *, most: int = NAME_BYTES) -> str:
    """A text that is to be the path from a folder to a file in it, as it is; for arguments see `check_name`.

    Raises:
        InputError: see `path_fault`.
    """
    if fault := path_fault(text, most):
        raise InputError(f"{where}: the {what} {_shown(text)} {fault}, so it is refused: correct it")
    return str(text)


def file_below(folder: Path, text: str) -> Path | None:
    """The file that `text` means, from `folder` on or absolute; None where that is not strictly below `folder`.

    Only the text counts: `folder` may be a link, and may hold links that its owner has put there.
    """
    root = os.path.abspath(folder)
    path = Path(os.path.normpath(os.path.join(root, text)))
    if path == Path(root) or not path.is_relative_to(root) or path_fault(str(path.relative_to(root))):
        return None
    return path


def inside(root: Path, *names: str) -> Path:
    """The path of `names` below `root`, for something that is written or removed.

    `root` is what the user named and may be a link; nothing below it may be one, for it would lead elsewhere.

    Raises:
        InputError: a name is none, or a part of the path is a symbolic link.
    """
    path = root
    for name in names:
        if fault := name_fault(name, NAME_BYTES):
            raise InputError(f"{_shown(name)} {fault}, so nothing is written under it in {path}: change it")
        path = path / name
        if is_link(path):
            raise InputError(
                f"{path} is a symbolic link, and nothing is read, written or removed through one in {root}: put what "
                "it leads to in its place"
            )
    return path


def is_link(path: Path) -> bool:
    """Whether a path is a symbolic link or, on Windows, a junction."""
    return path.is_symlink() or _isjunction(path)


def item_id(shard: str, key: str, caption: int | None = None) -> str:
    """The id of a pair: the readable part of its key, and a digest of shard, key and number of the caption.

    It depends on nothing else, so it stays the same when data are added, and for another annotator of the same data.
    """
    place = f"{shard}\0{key}" if caption is None else f"{shard}\0{key}\0{caption}"
    last = re.split(r"[/\\]", key)[-1]
    stem = last.rsplit(".", 1)[0] or last
    readable = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:60]
    return f"{readable or 'item'}-{_digest(place)}"


def word_file(word: str) -> str:
    """The name, without its ending, of the file of a word's mask.

    Letters and digits of any script, "-", "_" and "'" stay; everything else becomes %XX as in a web address. A name
    that is too long for a file system ends in a digest.
    """
    text = word.lower()
    name = "".join(char if char.isalnum() or char in "-_'" else _percent(char) for char in text)
    return _shortened(_no_device(name), text, _WORD_BYTES)


def file_part(text: str) -> str:
    """A part of a path (not empty) that looks like `text`: what file names cannot have becomes %XX.

    Different texts give different names, except for the case of letters.
    """
    name = _ESCAPE.sub("%25", text)
    name = "".join(_percent(char) if char in _FORBIDDEN or _is_control(char) else char for char in name)
    name = "".join(_percent(char) if "\ud800" <= char <= "\udfff" else char for char in name)
    if name[0] == "." or not name.strip(" ."):
        name = _percent(name[0]) + name[1:]
    if name[-1] in " .":
        name = name[:-1] + _percent(name[-1])
    return _shortened(_no_device(name), text, ID_BYTES)


def _no_device(name: str) -> str:
    return _percent(name[0]) + name[1:] if _DEVICES.fullmatch(name) else name


def _shortened(name: str, text: str, most: int) -> str:
    return name if len(_bytes(name)) <= most else f"{name[:20]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(_bytes(text)).hexdigest()[:10]


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in _bytes(char))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _is_control(char: str) -> bool:
    return char < " " or char == "\x7f"


def _encoding_fault(text: str, most: int) -> str | None:
    try:
        length = len(os.fsencode(text))
    except UnicodeEncodeError:
        return "holds a character that file names cannot have"
    return "is too long for a file name" if length > most else None


def _no_text(value: object) -> str:
    return "is empty" if isinstance(value, str) else "is not a text"


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:60]}… ({len(shown) - 2} characters)"
