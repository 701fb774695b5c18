"""Text embeddings kept on disk: found again by what decides them, bounded, and never wrong."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import tiny_clip
from ttd.model import TTD
from ttd.text.embeddings import RepeatableTexts, TextCache, Texts

TWO = ("a photo of a {}.", "the {}")


class Counting:
    """How many texts an encoder is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, encoder: Any) -> None:
        self.texts: list[str] = []
        inner = encoder.encode_text

        def encode_text(texts: Sequence[str], templates: Sequence[str] = ("{}",)) -> torch.Tensor:
            self.texts += texts
            found: torch.Tensor = inner(texts, templates)
            return found

        monkeypatch.setattr(encoder, "encode_text", encode_text)


def test_another_process_finds_what_was_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, path = tiny_clip(), tmp_path / "made" / "texts.sqlite3"
    made = Texts(first, TextCache(path, first)).encode(["dog", "traffic light"], TWO)
    again = tiny_clip()
    asked = Counting(monkeypatch, again)
    texts = Texts(again, TextCache(path, again))
    assert torch.equal(texts.encode(["traffic light", "dog"], TWO), made[[1, 0]])
    assert asked.texts == []
    texts.encode(["dog", "cat"], TWO)
    assert asked.texts == ["cat"]
    texts.encode(["dog"], ("{}",))  # one template alone is not kept
    assert asked.texts == ["cat", "dog"]
    texts.encode(["dog"], tuple(reversed(TWO)))
    assert asked.texts == ["cat", "dog", "dog"]


@pytest.mark.parametrize("name", ["proxyclip", "trident"])
def test_methods_share_texts_also_those_with_a_second_backbone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, path = tiny_clip(), tmp_path / "texts.sqlite3"
    made = Texts(first, TextCache(path, first)).encode(["dog"], TWO)
    other = tiny_clip().with_method(name)
    asked = Counting(monkeypatch, other)
    assert torch.equal(Texts(other, TextCache(path, other)).encode(["dog"], TWO), made)
    assert asked.texts == []


def test_a_repeatable_question_is_kept_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_clip()
    question = ["dog", "cat", "dog"]
    made = RepeatableTexts(encoder, TextCache(tmp_path / "t", encoder)).encode(question, TWO)
    asked = Counting(monkeypatch, encoder)
    texts = RepeatableTexts(encoder, TextCache(tmp_path / "t", encoder))
    assert torch.equal(texts.encode(question, TWO), made)
    assert asked.texts == []
    texts.encode(["dog"], TWO)  # another question
    assert asked.texts == ["dog"]


def test_another_model_has_entries_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for change in (
        lambda encoder: encoder,
        lambda encoder: encoder.to(torch.bfloat16),
        lambda encoder: encoder.backbone.text_model.final_layer_norm.bias.data.add_(1e-3),
    ):
        encoder = tiny_clip()
        change(encoder)
        asked = Counting(monkeypatch, encoder)
        Texts(encoder, TextCache(tmp_path / "t", encoder)).encode(["dog"], TWO)
        assert asked.texts == ["dog"]


def test_damage_never_gives_other_embeddings(tmp_path: Path) -> None:
    encoder, path = tiny_clip(), tmp_path / "t"
    names = [f"name {number}" for number in range(40)]
    made = Texts(encoder, TextCache(path, encoder)).encode(names, TWO)
    content = path.read_bytes()
    found_again = 0
    for place in range(0, len(content), 401):
        broken = bytearray(content)
        broken[place] ^= 0x55
        path.write_bytes(broken)
        kept = TextCache(path, encoder).read([(name,) for name in names], TWO)
        for (name,), values in kept.items():
            assert torch.equal(values[0], made[names.index(name)]), place
        found_again += len(kept)
    assert found_again > 0
    for wrong in (b"", b"no database at all" * 100, content[: len(content) // 2]):
        path.write_bytes(wrong)
        assert torch.allclose(Texts(encoder, TextCache(path, encoder)).encode(names, TWO), made, atol=1e-6)
    Texts(encoder, TextCache(path, encoder)).encode(names, TWO)
    assert len(TextCache(path, encoder).read([(name,) for name in names], TWO)) == 40  # begun again


def test_places_that_cannot_be_used_are_passed_over(tmp_path: Path) -> None:
    encoder = tiny_clip()
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "t", tmp_path / "folder"):
        assert len(Texts(encoder, TextCache(path, encoder)).encode(["dog"], TWO)) == 1
    assert (tmp_path / "file").read_text() == "x"


def test_the_file_stays_bounded(tmp_path: Path) -> None:
    encoder, path, most = tiny_clip(), tmp_path / "t", 200_000
    cache = TextCache(path, encoder, most)
    rows = torch.ones(1, encoder.embedding_size)
    for start in range(0, 5000, 100):
        cache.write({(f"{number}",): rows for number in range(start, start + 100)}, TWO)
    assert path.stat().st_size < 1.5 * most
    assert (("4999",)) in cache.read([("0",), ("4999",)], TWO)
    assert (("0",)) not in cache.read([("0",), ("4999",)], TWO)


def _fill(path: str, first: int) -> None:
    encoder = tiny_clip()
    for number in range(first, first + 40):
        Texts(encoder, TextCache(Path(path), encoder)).encode([f"name {number}", "shared"], TWO)


@pytest.mark.slow
def test_processes_share_the_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fill, args=(str(tmp_path / "t"), 20 * n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    encoder = tiny_clip()
    names = [(f"name {number}",) for number in range(80)]
    kept = TextCache(tmp_path / "t", encoder).read([*names, ("shared",)], TWO)
    assert len(kept) == 81


def test_a_model_keeps_texts_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTD_CACHE", str(tmp_path / "cache"))
    model = TTD(tiny_clip())
    model.encode_text(["dog"], TWO)
    assert not (tmp_path / "cache").exists()
    model.keep_texts()
    model.encode_text(["cat"], TWO)
    model.repeatable().encode_text(["cat"], TWO)
    assert (tmp_path / "cache" / "texts-1.sqlite3").is_file()
