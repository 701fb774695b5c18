"""A set that came from somebody else: whatever its files say and link to, nothing outside of it is touched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.annotate.samples import open_annotations
from tests.annotate.writer import record
from tests.files.test_safe_paths import HOSTILE_NAMES
from ttd.annotate.export import Exporter, write_image
from ttd.annotate.queue import Claims
from ttd.annotate.records import SKIPPED, Record
from ttd.annotate.store import AnnotationStore, ExportFailed
from ttd.errors import InputError


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the user's own, with what the annotator would take for masks and leftovers."""
    folder = tmp_path / "outside"
    (folder / "item").mkdir(parents=True)
    for name in ("thesis.txt", "photo.png", ".x.json.1-ab.part", "item/photo.png", "item/.y.part", "lock", "item.json"):
        (folder / name).write_text(f"the user's {name}")
    Image.new("RGB", (8, 8)).save(folder / "item.png")
    return folder


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = {path: path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
    assert files
    return {str(path): (path.read_bytes(), about.st_mtime_ns) for path, about in files.items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and a `set` of one accepted and one skipped item."""
    home = tmp_path_factory.mktemp("finished")
    annotations = open_annotations(home / "data", home / "set")
    annotations.accept(annotations.open(0, "a"))
    annotations.skip(annotations.open(1, "a"))
    return home


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "home")
    return tmp_path / "home"


def files_of(home: Path) -> dict[str, Path]:
    """The two records by status."""
    paths = (home / "set" / "annotations").glob("*.json")
    return {json.loads(path.read_text())["status"]: path for path in paths}


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.mark.parametrize("status", ["accepted", "skipped"])
@pytest.mark.parametrize("kind", ["absolute", "relative", "link", *HOSTILE_NAMES])
def test_an_id_removes_and_writes_nothing_elsewhere(status: str, kind: str, home: Path, outside: Path) -> None:
    """The record keeps its own file name, or takes that of its id where that can be one."""
    ids = {"absolute": str(outside), "relative": "../../../outside", "link": "item"}
    identifier = ids.get(kind, HOSTILE_NAMES.get(kind, ""))
    before = content(outside)
    path = files_of(home)[status]
    change(path, id=identifier)
    if kind == "link":
        (home / "set" / "masks" / "item").symlink_to(outside)
        path.rename(path.with_name("item.json"))
        change(path.with_name("item.json"), image="item.png" if status == "accepted" else "")
    with pytest.raises(InputError, match=r"\.json: the id .* change it|is a symbolic link") as told:
        open_annotations(home / "data", home / "set")
    assert str(home / "set") in str(told.value)
    assert content(outside) == before


def test_the_id_must_be_the_name_of_the_file(home: Path) -> None:
    """An empty or foreign id once took away the masks of good items."""
    found = files_of(home)
    good = found["accepted"].stem
    change(found["skipped"], id=good, image=f"{good}.png")
    masks = content(home / "set" / "masks")
    with pytest.raises(InputError, match=rf"{found['skipped'].name} has the id '{good}', which must be"):
        open_annotations(home / "data", home / "set")
    assert content(home / "set" / "masks") == masks


@pytest.mark.parametrize("image", ["../../outside/photo.png", "/outside/photo.png", "other.png", ".png", "x/y.png"])
def test_the_image_must_be_the_items_own(image: str, home: Path) -> None:
    path = files_of(home)["accepted"]
    change(path, image=image)
    with pytest.raises(InputError, match=rf"{path.name}: the image .*(change|correct) it"):
        open_annotations(home / "data", home / "set")


INNER = ("annotations/drafts", "annotations/claims", "annotations/lock")
PLACES = ["annotations", "masks", "images", "tags.jsonl", *INNER]


@pytest.mark.parametrize("place", PLACES)
def test_a_link_in_the_set_is_refused_at_once(place: str, home: Path, outside: Path) -> None:
    before = content(outside)
    path = home / "set" / place
    moved = outside.with_name("moved")
    is_file = path.is_file()
    path.rename(moved)  # so that what is reached through the link looks right
    path.symlink_to(outside / "lock" if place.endswith("lock") else moved)
    elsewhere = content(moved.parent) if is_file else content(outside)
    with pytest.raises(InputError, match=f"{path.name} is a symbolic link, and nothing is read, written or removed"):
        open_annotations(home / "data", home / "set")
    assert content(outside) == before
    assert (content(moved.parent) if is_file else content(outside)) == elsewhere
    assert path.is_symlink()


@pytest.mark.parametrize("target", ["outside", "outside/item", "nowhere"])
def test_links_to_other_folders_are_refused(target: str, home: Path, outside: Path) -> None:
    before = content(outside)
    for place in ("masks", "images"):
        shutil.move(home / "set" / place, home / f"kept-{place}")
        (home / "set" / place).symlink_to(outside.parent / target)
        with pytest.raises(InputError, match=f"{place} is a symbolic link"):
            open_annotations(home / "data", home / "set")
        (home / "set" / place).unlink()
        shutil.move(home / f"kept-{place}", home / "set" / place)
    assert content(outside) == before
    assert not (outside.parent / "nowhere").exists()


@pytest.mark.parametrize("place", ["annotations/{}.json", "masks/{}", "masks/{}.png", "masks/{}/red.png"])
def test_a_link_for_one_item_is_refused(place: str, home: Path, outside: Path) -> None:
    before = content(outside)
    found = files_of(home)["accepted"]
    path = home / "set" / place.format(found.stem)
    assert path.exists()
    shutil.move(path, outside.with_name("kept"))
    path.symlink_to(outside.with_name("kept"))
    change(found, version=7) if path != found else None  # so that the item's files are written again
    with pytest.raises(InputError, match=f"{path.name} is a symbolic link"):
        open_annotations(home / "data", home / "set")
    assert content(outside) == before


def test_a_link_laid_for_an_item_to_come_costs_its_files_only(home: Path, outside: Path) -> None:
    """The decision itself is safe, and the sentence says what is in the way."""
    before = content(outside)
    annotations = open_annotations(home / "data", home / "set")
    opened = annotations.open(2, "a")
    (home / "set" / "masks" / opened.item.id).symlink_to(outside)
    with pytest.raises(ExportFailed, match=r"your decision is saved, but .* is a symbolic link"):
        annotations.accept(opened)
    assert content(outside) == before
    with pytest.raises(InputError, match="is a symbolic link"):
        open_annotations(home / "data", home / "set")
    (home / "set" / "masks" / opened.item.id).unlink()
    assert open_annotations(home / "data", home / "set").progress().accepted == 2
    assert (home / "set" / "masks" / opened.item.id).is_dir()


@pytest.mark.parametrize("place", ["annotations/drafts/{}.json", "annotations/claims/{}.lock", "images/{}.png"])
def test_a_link_laid_for_a_draft_claim_or_image_is_refused(place: str, home: Path, outside: Path) -> None:
    before = content(outside)
    annotations = open_annotations(home / "data", home / "set")
    path = home / "set" / place.format(annotations.queue.items[2].id)
    path.unlink(missing_ok=True)
    path.symlink_to(outside / "thesis.txt")
    with pytest.raises(InputError, match=f"{path.name} is a symbolic link"):
        annotations.accept(annotations.open(2, "a"))
    assert content(outside) == before
    assert annotations.store.get(annotations.queue.items[2].id) is None


def test_leftovers_behind_links_stay(home: Path, outside: Path) -> None:
    before = content(outside)
    (home / "set" / "masks" / "stray").symlink_to(outside)
    AnnotationStore(home / "set")
    assert content(outside) == before


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
@pytest.mark.parametrize(
    "use",
    [
        lambda root, name: Exporter(root).export(record(name, 1)),
        lambda root, name: Exporter(root).export(Record(name, 0, SKIPPED, "s", "k", 0, "dog", ("dog",))),
        lambda root, name: Exporter(root).repair([record(name, 1)]),
        lambda root, name: AnnotationStore(root).put(record(name, 1), 0),
    ],
    ids=["publish", "take away", "repair", "put"],
)
def test_no_part_takes_an_id_for_a_path(
    use: Callable[[Path, str], object], name: str, tmp_path: Path, outside: Path
) -> None:
    before = content(tmp_path)
    with pytest.raises(InputError):
        use(tmp_path / "set", name)
    assert content(outside).items() <= before.items()
    strays = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(tmp_path / "set")]
    assert {str(path) for path in strays} == set(before)


@pytest.mark.parametrize("name", ["../outside/new", "../../outside/new", "/outside/new", "a/b", "..\\outside\\new"])
def test_images_and_claims_stay_in_their_folders(name: str, tmp_path: Path, outside: Path) -> None:
    name = name if name[0] != "/" else str(outside / "new")
    with pytest.raises(InputError, match="is a path and no name"):
        write_image(tmp_path / "set", f"{name}.png", b"x")
    with pytest.raises(InputError, match="is a path and no name"):
        Claims(tmp_path / "set").take(name, "tab")
    assert not (outside / "new.png").exists()
    assert not (outside / "new.lock").exists()


def test_a_set_behind_a_link_that_the_user_names_works(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "my-set").symlink_to(home / "set")
    monkeypatch.chdir(home)
    annotations = open_annotations(home / "data", Path("my-set"))
    assert annotations.progress().accepted == 1
    annotations.accept(annotations.open(2, "a"))
    assert open_annotations(home / "data", home / "set").progress().accepted == 2
