"""Plain downloads: whole or not at all, continued, checked; TCL's release is converted once."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import re
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tests.encoders.hub_stand_in import StandIn
from ttd.encoders.loading.catalogue import ModelEntry, find_entry
from ttd.encoders.loading.downloads import cache_folder, download, human_size, released_weights
from ttd.errors import ModelError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CLOSED = "http://127.0.0.1:9/tcl.pth"  # the discard port, where nothing listens


@pytest.fixture
def url(hub: StandIn) -> str:
    hub.files["/file.bin"] = CONTENT
    return f"{hub.url}/file.bin"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_arrives_whole(url: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    download(url, tmp_path / "a" / "file.bin", sha256=SHA256)
    assert (tmp_path / "a" / "file.bin").read_bytes() == CONTENT
    assert names(tmp_path / "a") == ["file.bin"]


def test_continues_where_it_broke_off(url: str, hub: StandIn, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    hub.cut["/file.bin"] = [4000]
    with pytest.raises(ModelError, match=r"broke off .*run the same command again"):
        download(url, target, sha256=SHA256)
    assert not target.exists()
    download(url, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert hub.requests[-1] == ("GET", "/file.bin", "bytes=4000-")
    assert not (tmp_path / "file.bin.part").exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_starts_anew_when_the_file_changed_or_cannot_be_continued(
    url: str, hub: StandIn, tmp_path: Path, ranges: bool
) -> None:
    hub.cut["/file.bin"] = [4000]
    with pytest.raises(ModelError):
        download(url, tmp_path / "file.bin")
    hub.ranges = ranges
    hub.files["/file.bin"] = CONTENT[::-1]
    download(url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT[::-1]


def test_a_wrong_hash_deletes_the_file(url: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"has the hash {SHA256[:12]}.*has been deleted"):
        download(url, tmp_path / "file.bin", sha256="0" * 64)
    assert not [name for name in names(tmp_path) if name.startswith("file.bin") and not name.endswith("etag")]


def test_missing_file_and_closed_port(hub: StandIn, tmp_path: Path) -> None:
    for address in (f"{hub.url}/nothing", CLOSED):
        with pytest.raises(ModelError, match=r"tcl\.pth \(about 713 MB\).*by hand.*mini.* needs no download"):
            download(address, tmp_path / "tcl.pth", size=713_000_000)
        with pytest.raises(ModelError, match=re.escape(str(tmp_path / "tcl.pth"))):
            download(address, tmp_path / "tcl.pth")


@pytest.mark.parametrize(("code", "said"), [(errno.ENOSPC, "is full"), (errno.EACCES, "cannot be written")])
def test_a_disk_that_takes_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    def fail(_: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ModelError, match=rf"{said}.*TTD_CACHE"):
        download(url, tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()


def test_cache_folder_is_an_environment_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TTD_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("TTD_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "ttd"


def test_sizes_as_people_say_them() -> None:
    said = [human_size(size) for size in (None, 10, 599_000_000, 1_710_000_000)]
    assert said == ["of unknown size", "about 1 MB", "about 599 MB", "about 1.7 GB"]


class TestTCL:
    @pytest.fixture
    def entry(self, hub: StandIn, tcl_tensors: dict[str, torch.Tensor], tmp_path: Path) -> ModelEntry:
        torch.save({"model": tcl_tensors, "epoch": 3}, tmp_path / "served.pth")
        hub.files["/releases/tcl.pth"] = (tmp_path / "served.pth").read_bytes()
        row = find_entry("tcl")
        assert row is not None
        sha256 = hashlib.sha256(hub.files["/releases/tcl.pth"]).hexdigest()
        return dataclasses.replace(row, source=f"{hub.url}/releases/tcl.pth", sha256=sha256)

    def test_is_converted_once(
        self, entry: ModelEntry, hub: StandIn, ttd_cache: Path, tcl_tensors: dict[str, torch.Tensor]
    ) -> None:
        path = released_weights(entry)
        assert path == ttd_cache / "tcl.safetensors"
        loaded = load_file(path)
        assert loaded.keys() == tcl_tensors.keys()
        assert all(torch.equal(loaded[name], tcl_tensors[name]) for name in loaded)
        assert [name for name in names(ttd_cache) if not name.endswith(".lock")] == ["tcl.safetensors"]
        assert released_weights(entry) == path
        assert len(hub.requests) == 1

    def test_a_file_put_there_by_hand_is_used_and_kept(self, entry: ModelEntry, hub: StandIn, ttd_cache: Path) -> None:
        ttd_cache.mkdir()
        (ttd_cache / "tcl.pth").write_bytes(hub.files["/releases/tcl.pth"])
        assert released_weights(entry).is_file()
        assert (ttd_cache / "tcl.pth").is_file()
        assert hub.requests == []

    def test_a_full_disk_leaves_no_conversion(
        self, entry: ModelEntry, ttd_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: object, path: Path, **options: object) -> None:
            path.write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device (os error 28)")

        monkeypatch.setattr("ttd.encoders.loading.checkpoints.save_file", fail)
        with pytest.raises(ModelError, match=r"is full.*TTD_CACHE"):
            released_weights(entry)
        assert not [name for name in names(ttd_cache) if "safetensors" in name]

    def test_a_damaged_file_leaves_no_conversion(self, entry: ModelEntry, hub: StandIn, ttd_cache: Path) -> None:
        ttd_cache.mkdir()
        (ttd_cache / "tcl.pth").write_bytes(hub.files["/releases/tcl.pth"][:-100])
        with pytest.raises(ModelError, match=r"tcl\.pth"):
            released_weights(entry)
        assert not (ttd_cache / "tcl.safetensors").exists()
