"""What stays on disk of uploads: behind the guard, before a server that writes as gradio does."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ttd.app.uploads import MAX_AT_ONCE, UploadFolder, UploadRefused

MOST = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "scene.png").write_bytes(b"x" * 5000)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()} - {"scene.png"}


class Writer:
    """Writes an upload to `tmp...`, then to `DIGEST/NAME`; without `keeps` it leaves the first, as gradio does."""

    def __init__(self, folder: Path, keeps: bool = True) -> None:
        self.folder, self.keeps, self.sizes = folder, keeps, list[int]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as part:
            while True:
                message = await receive()
                part.write(message["body"])
                if not message["more_body"]:
                    break
        content = Path(part.name).read_bytes()
        self.sizes.append(len(content))
        if not self.keeps:
            raise ValueError("not what was expected")
        target = self.folder / hashlib.sha256(content).hexdigest() / scope["name"]
        target.parent.mkdir(exist_ok=True)
        Path(part.name).rename(target)


def sending(*chunks: bytes, ends: bool = True) -> Any:
    left = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if ends:
        left.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return left.pop(0) if left else {"type": "http.disconnect"}

    return receive


async def nothing(message: Any) -> None:
    pass


def take(uploads: UploadFolder, app: Writer, receive: Any, name: str = "a.png") -> None:
    asyncio.run(uploads.take(app, {"name": name}, receive, nothing, MOST))


def test_a_whole_upload_reaches_the_server_as_it_was_sent(folder: Path) -> None:
    app = Writer(folder)
    take(UploadFolder(folder), app, sending(b"abc", b"", b"de" * 100))
    (found,) = (path for path in folder.glob("*/a.png"))
    assert found.read_bytes() == b"abc" + b"de" * 100


@pytest.mark.parametrize(
    ("receive", "status"),
    [(sending(b"x" * 500, ends=False), 400), (sending(b"x" * 600, b"x" * 600), 413)],
    ids=["broken off", "too large"],
)
def test_nothing_stays_of_a_refused_upload_nor_does_the_server_see_it(folder: Path, receive: Any, status: int) -> None:
    app = Writer(folder)
    with pytest.raises(UploadRefused) as refused:
        take(UploadFolder(folder), app, receive)
    assert refused.value.status == status
    assert not app.sizes
    assert not files(folder)


def test_nothing_stays_of_an_upload_that_takes_too_long(folder: Path) -> None:
    async def forever() -> Any:
        await asyncio.Event().wait()

    with pytest.raises(UploadRefused) as refused:
        take(UploadFolder(folder, seconds=0), Writer(folder), forever)
    assert refused.value.status == 408
    assert not files(folder)


def test_what_the_server_leaves_behind_is_removed(folder: Path) -> None:
    with pytest.raises(ValueError, match="expected"):
        take(UploadFolder(folder), Writer(folder, keeps=False), sending(b"x" * 100))
    assert not files(folder)


def test_the_oldest_uploads_make_room_and_their_folders_go(folder: Path) -> None:
    uploads, app = UploadFolder(folder, limit=2500), Writer(folder)
    for number in range(10):
        take(uploads, app, sending(bytes([number]) * 600), f"{number}.png")
        sizes = [path.stat().st_size for path in folder.glob("*/*.png") if path.parent.name != "examples"]
        assert sum(sizes) <= 2500
        assert f"{number}.png" in files(folder)
    assert len(files(folder)) == 4
    assert (folder / "examples" / "scene.png").exists()
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 5


def test_many_small_uploads_are_bounded_too(folder: Path) -> None:
    uploads, app = UploadFolder(folder, files=5), Writer(folder)
    for number in range(12):
        take(uploads, app, sending(bytes([number])), f"{number}.png")
    assert 0 < len(files(folder)) <= 5 + 1


def test_no_more_than_so_many_arrive_at_once(folder: Path) -> None:
    uploads, app = UploadFolder(folder), Writer(folder)

    async def storm() -> list[Any]:
        hold = asyncio.Event()

        async def slow() -> Any:
            await hold.wait()
            return {"type": "http.request", "body": b"x", "more_body": False}

        running = [
            asyncio.create_task(uploads.take(app, {"name": "a"}, slow, nothing, MOST)) for _ in range(MAX_AT_ONCE)
        ]
        await asyncio.sleep(0)  # all of them have begun
        with pytest.raises(UploadRefused, match="try again") as refused:
            await uploads.take(app, {"name": "a"}, slow, nothing, MOST)
        assert refused.value.status == 503
        hold.set()
        return await asyncio.gather(*running)

    asyncio.run(storm())
    take(uploads, app, sending(b"y"), "after.png")
    assert "after.png" in files(folder)
