"""Shards and lists from elsewhere: the same pairs as from the disk, whatever the connection does."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.samples import write_shards
from tests.encoders.hub_stand_in import StandIn, serving
from tests.extras import needs
from ttd.data import remote
from ttd.data.bad_samples import BadSample
from ttd.data.sources import PairSource
from ttd.errors import InputError, MissingExtra

needs("remote", "aiohttp")
SMALL = 1 << 14  # a block


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote, "BLOCK", SMALL)
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.0)
    monkeypatch.setenv("TTD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandIn]:
    """Two shards `/cc/00000.tar` and `/cc/00001.tar`, also as `local/cc`."""
    with serving() as stand_in:
        for path in write_shards(tmp_path / "local/cc", [9, 5]):
            stand_in.files[f"/cc/{path.name}"] = path.read_bytes()
        yield stand_in


def everything(source: PairSource) -> list[tuple[str, str, tuple[str, ...], bytes]]:
    return [
        (*source.locate(i), source.captioned(i).captions, source.shard_row(i)[0].image_bytes(source.shard_row(i)[1]))
        for i in range(len(source))
    ]


def gets(server: StandIn) -> list[str | None]:
    return [part for method, path, part in server.requests if method == "GET" and path.endswith(".tar")]


def test_the_pairs_are_those_of_the_same_shards_on_the_disk(server: StandIn, tmp_path: Path) -> None:
    local = PairSource(tmp_path / "local/cc")
    source = PairSource(f"{server.url}/cc/{{00000..00001}}.tar")
    assert everything(source) == everything(local)
    assert source.fingerprint() == local.fingerprint()
    blocks = sum(-(-len(tar) // SMALL) for tar in server.files.values())
    assert len(gets(server)) == blocks
    again = pickle.loads(pickle.dumps(PairSource(f"{server.url}/cc/{{00000..00001}}.tar")))
    assert everything(again) == everything(local)
    assert len(gets(server)) == blocks  # nothing is fetched twice: blocks and indices are kept


def test_a_folder_and_a_wildcard_are_listed(server: StandIn, tmp_path: Path) -> None:
    page = "".join(f'<a href="{name}">{name}</a>' for name in ("00001.tar", "00000.tar", "00000_stats.json", "x.txt"))
    server.files["/cc/"] = page.encode()
    for source in (f"{server.url}/cc/", f"{server.url}/cc", f"{server.url}/cc/0*.tar"):
        assert [shard.name for shard in PairSource(source).shards] == ["cc/00000.tar", "cc/00001.tar"]


@pytest.mark.parametrize("fault", ["503", "429", "cut off", "nothing"])
def test_a_failure_that_passes_costs_nothing(server: StandIn, tmp_path: Path, fault: str) -> None:
    path = "/cc/00000.tar"
    if fault in ("503", "429"):
        server.next_status[path] = [int(fault)] * 4
    else:
        server.cut[path] = [0 if fault == "nothing" else 700] * 4
    source = PairSource(f"{server.url}{path}")
    assert everything(source) == everything(PairSource(tmp_path / "local/cc/00000.tar"))
    assert not server.next_status.get(path)
    assert not server.cut.get(path)


@pytest.mark.parametrize("fault", ["503", "cut off", "no server"])
def test_a_failure_that_stays_ends_the_job_in_one_sentence(server: StandIn, fault: str) -> None:
    url = f"{server.url}/cc/00000.tar?Signature=secret"
    server.files["/cc/00000.tar?Signature=secret"] = server.files["/cc/00000.tar"]
    if fault == "no server":
        url = "http://127.0.0.1:9/cc/00000.tar?Signature=secret"
    elif fault == "503":
        server.status["/cc/00000.tar?Signature=secret"] = 503
    else:
        server.cut["/cc/00000.tar?Signature=secret"] = [700] * 100
    with pytest.raises(InputError, match=rf"could not be read in {remote.TRIES} tries \(.+\): run the same") as error:
        PairSource(url)
    assert "secret" not in str(error.value)


def test_an_interrupted_job_goes_on_with_the_block_that_it_was_at(server: StandIn) -> None:
    path = "/cc/00000.tar"
    file = remote.RemoteFile(server.url + path)
    with file.open() as opened:
        opened.read(3 * SMALL)
    server.requests.clear()
    with remote.RemoteFile(server.url + path).open() as opened:
        assert opened.read() == server.files[path]
    assert [part.partition("-")[0] for part in gets(server) if part] == [
        f"bytes={start}" for start in range(3 * SMALL, len(server.files[path]), SMALL)
    ]


@pytest.mark.parametrize("new", ["as long", "shorter", "empty"])
def test_a_file_that_is_replaced_while_it_is_read_ends_the_job(server: StandIn, new: str) -> None:
    path = "/cc/00000.tar"
    source = PairSource(server.url + path)
    for block in (Path(os.environ["TTD_CACHE"]) / "remote").glob("*/[0-9]*"):
        block.unlink()
    changed = server.files[path].replace(b"image number", b"photo number")
    server.files[path] = {"as long": changed, "shorter": changed[:100], "empty": b""}[new]
    with pytest.raises(InputError, match="was changed during the run: start again"):
        source.captioned(0)
    if new == "as long":
        assert PairSource(server.url + path).captioned(0).captions == ("a red photo number 0",)


def test_a_shard_that_vanishes_costs_its_pairs_and_is_counted(server: StandIn) -> None:
    source = PairSource(f"{server.url}/cc/{{00000..00001}}.tar")
    for block in (Path(os.environ["TTD_CACHE"]) / "remote").glob("*/[0-9]*"):
        block.unlink()
    del server.files["/cc/00001.tar"]
    assert source.captioned(0).captions == ("a red image number 0",)
    with pytest.raises(BadSample, match=r"cc/00001\.tar is damaged \(unreadable shard: it is gone") as error:
        source.captioned(9)
    assert error.value.key == "000000009"
    with pytest.raises(InputError, match=r"cc/00001\.tar does not exist: check the address"):
        PairSource(f"{server.url}/cc/{{00000..00001}}.tar")


def test_the_cache_stays_within_its_size_and_keeps_the_indices(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_LEAST", 1)
    limit = 3 * SMALL
    monkeypatch.setenv(remote.SIZE_VARIABLE, f"{limit / 1e6}MB")
    source = PairSource(f"{server.url}/cc/{{00000..00001}}.tar")
    assert everything(source) == everything(PairSource(tmp_path / "local/cc"))
    kept = list((tmp_path / "cache/remote").glob("*/*"))
    assert sum(path.stat().st_size for path in kept if path.suffix != ".index") <= limit
    assert sum(path.suffix == ".index" for path in kept) == 2


def test_lists_are_copied_and_read_like_local_ones(server: StandIn, tmp_path: Path) -> None:
    server.files["/lists/pairs.csv"] = b"image,caption\n0.png,a dog\n1.png,a cat\n"
    source = PairSource(f"{server.url}/lists/pairs.csv")
    assert source.locate(1) == ("lists/pairs.csv", "1.png")
    assert source.captioned(1).captions == ("a cat",)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/cc/0.tar", r"there is no way to read ftp://; use s3://, gs://, hf://, http://, https://"),
        ("https://me:pass@host/cc/0.tar", r"leave name and password out of the address"),
        ("https://host/../0.tar", "is a path and no name, so it cannot name a file"),
        ("{server}/nothing/", "does not exist, or cannot be listed: check the address"),
        ("{server}/cc/0.tgz", "does not exist, or cannot be listed: check the address"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(server: StandIn, url: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        PairSource(url.replace("{server}", server.url))
    assert "pass@" not in str(error.value)


@pytest.mark.parametrize(("status", "said"), [(401, "~/.netrc"), (403, "may not be read"), (400, "check the address")])
def test_what_may_not_be_read_is_not_tried_again(server: StandIn, status: int, said: str) -> None:
    server.status["/cc/00000.tar"] = status
    with pytest.raises(InputError, match=rf"HTTP {status}.*{said}|{said}.*"):
        PairSource(f"{server.url}/cc/00000.tar")
    assert len([path for _, path, _ in server.requests]) <= 2


def test_a_server_without_ranges_is_refused(server: StandIn) -> None:
    server.ranges = False
    with pytest.raises(InputError, match="sends whole files only, no parts of them: download it first"):
        PairSource(f"{server.url}/cc/00000.tar")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtra, match=r"gs:// needs gcsfs: run `pip install -e '\.\[remote\]'"):
        PairSource("gs://bucket/cc/0.tar")


@pytest.mark.parametrize("size", ["much", "1KB", "10"])
def test_a_size_of_the_cache_that_is_none_is_refused(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    monkeypatch.setenv(remote.SIZE_VARIABLE, size)
    with pytest.raises(InputError, match=f"TTD_REMOTE_CACHE={size} is not a cache size"):
        PairSource(f"{server.url}/cc/00000.tar")


def test_nothing_secret_is_logged(server: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    path = "/cc/00000.tar?X-Amz-Signature=secret"
    server.files[path] = server.files["/cc/00000.tar"]
    server.next_status[path] = [503, 503]
    caplog.set_level(logging.INFO, "ttd")
    source = PairSource(server.url + path)
    assert source.shards[0].name == "cc/00000.tar"
    assert "tried again" in caplog.text
    assert "secret" not in caplog.text + repr(source.shards[0].path) + str(source.shards[0].path)
