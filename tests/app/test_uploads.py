from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from ttd.app import uploads
from ttd.errors import InputError


def test_the_same_bytes_are_the_same_image(tmp_path: Path) -> None:
    for name, shade in (("a", 0), ("b", 0), ("c", 1)):
        Image.new("RGB", (5, 4), (shade, 0, 0)).save(tmp_path / f"{name}.png")
    a, b, c = (uploads.digest(str(tmp_path / f"{name}.png")) for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"<svg></svg>"])
def test_what_is_not_an_image_is_named_without_the_servers_folders(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "holiday.png"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        uploads.read_upload(str(path))
    assert "holiday.png" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_too_many_pixels_and_bytes_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wide.png"
    Image.new("1", (9000, 6000)).save(path)
    monkeypatch.setattr(uploads, "read_image", lambda path: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match="54 megapixels, this page takes 50"):
        uploads.read_upload(str(path))
    os.truncate(path, uploads.MAX_BYTES + 1)
    with pytest.raises(InputError, match="larger than"):
        uploads.digest(str(path))
    with pytest.raises(InputError, match="no longer on the server"):
        uploads.digest(str(tmp_path / "gone.png"))


def test_an_image_is_upright(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    assert uploads.read_upload(str(path)).size == (20, 40)
