"""The same against moto's S3, whose answers a test can spoil."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import invoke
from tests.data.samples import write_shards
from tests.extras import needs
from ttd.data import remote
from ttd.data.bad_samples import BadSample
from ttd.data.sources import PairSource
from ttd.errors import InputError

s3fs, boto3 = needs("remote", "s3fs"), needs("remote-test", "boto3")
moto, serving = needs("remote-test", "moto.server"), needs("remote-test", "werkzeug.serving")
pytestmark = pytest.mark.slow


class Bucket:
    """`s3://pairs`, with two shards in `cc/`."""

    def __init__(self, local: Path) -> None:
        self.app: Any = moto.DomainDispatcherApplication(moto.create_backend_app)
        self.faults: list[str] = []  # of the next answers to GET of a shard, the last first
        self.server = serving.make_server("127.0.0.1", 0, self._answer, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.client = boto3.client("s3", endpoint_url=self.url)
        self.client.create_bucket(Bucket="pairs")
        for path in write_shards(local / "cc", [9, 5]):
            self.client.put_object(Bucket="pairs", Key=f"cc/{path.name}", Body=path.read_bytes())

    def _answer(self, asked: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        fault = ""
        if asked["REQUEST_METHOD"] == "GET" and asked["PATH_INFO"].endswith(".tar") and self.faults:
            fault = self.faults.pop()
        if fault in ("403", "503"):
            start(f"{fault} Spoilt", [("Content-Length", "0")])
            return [b""]
        body = b"".join(self.app(asked, start))
        return [body[:500]] if fault == "cut off" else [body]


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setattr(remote, "BLOCK", 1 << 14)
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.0)
    monkeypatch.setenv("TTD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "very-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = Bucket(tmp_path / "local")
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url)
    yield bucket
    bucket.server.shutdown()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("fault", ["", "503", "cut off"])
@pytest.mark.parametrize("named", ["s3://pairs/cc", "s3://pairs/cc/*.tar", "s3://pairs/cc/{00000..00001}.tar"])
def test_the_pairs_are_those_of_the_same_shards_on_the_disk(
    bucket: Bucket, tmp_path: Path, named: str, fault: str
) -> None:
    bucket.faults = [fault] * 3
    source, local = PairSource(named), PairSource(tmp_path / "local/cc")
    assert source.fingerprint() == local.fingerprint()
    assert [source.captioned(i) for i in range(14)] == [local.captioned(i) for i in range(14)]
    assert not bucket.faults


def test_credentials_are_in_no_file_no_message_and_no_log(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.faults = ["503"]  # what is tried again is logged
    with caplog.at_level(logging.DEBUG, logger="ttd"):
        done = invoke("prune", "s3://pairs/cc", "--model", "mini", "--k", 0, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for folder in ("cache/remote", "run"):
        assert any(path.is_relative_to(tmp_path / folder) for path in files)
    assert [path for path in files if b"very-secret" in path.read_bytes()] == []
    assert "very-secret" not in caplog.text + done.output


def test_what_is_replaced_or_removed_while_it_is_read_is_noticed(bucket: Bucket, tmp_path: Path) -> None:
    source = PairSource("s3://pairs/cc/")
    for block in (tmp_path / "cache/remote").glob("*/[0-9]*"):
        block.unlink()
    bucket.client.put_object(Bucket="pairs", Key="cc/00000.tar", Body=b"another")
    bucket.client.delete_object(Bucket="pairs", Key="cc/00001.tar")
    with pytest.raises(InputError, match="was changed during the run: start again"):
        source.captioned(0)
    with pytest.raises(BadSample, match="it is gone from its address"):
        source.captioned(9)


def test_what_is_not_there_or_not_allowed_is_said_in_one_sentence(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for named in ("s3://pairs/cc/00002.tar", "s3://nobody/cc/", "s3://pairs/none/*.tar"):
        with pytest.raises(InputError, match=r"check the address$"):
            PairSource(named)
    bucket.faults = ["403"]
    with pytest.raises(InputError, match=r"cc/00000\.tar may not be read \(.+\): log in as for the aws command"):
        PairSource("s3://pairs/cc/00000.tar")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match=r"may not be read \(NoCredentialsError\): log in .* FSSPEC_S3_ANON=true"):
        PairSource("s3://pairs/cc/00000.tar")
