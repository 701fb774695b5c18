from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

from tests.data.samples import image, json_bytes, sample, write_tar
from tests.training.conftest import tiny_config
from ttd.data.sources import PairSource
from ttd.errors import InputError, MissingExtra, OutOfMemory
from ttd.taggers.nouns import open_nouns
from ttd.training.config import Config
from ttd.training.dataset import Batch, Steps, load_steps


def steps_of(config: Config, rank: int = 0, world: int = 1) -> Steps:
    return Steps(PairSource(config.data.sources, tags=config.data.tags or None), config, rank, world)


def strings(batch: Batch, b: int) -> list[str]:
    return [batch.words[row] for row, valid in zip(batch.word_rows[b], batch.word_valid[b], strict=True) if valid]


@pytest.mark.parametrize(("steps", "total", "said"), [(0, 12, False), (5, 5, False), (12, 12, False), (13, 12, True)])
def test_steps_or_epochs_end_a_run(
    base: Path, shards: Path, caplog: pytest.LogCaptureFixture, steps: int, total: int, said: bool
) -> None:
    config = tiny_config(base, shards, "optimiser.epochs=2", f"optimiser.steps={steps}")
    assert len(steps_of(config)) == total
    told = "optimiser.epochs=2 ends the run after 12 steps, not 13: set optimiser.epochs=3 for all of them"
    assert ([told] if said else []) == [record.message for record in caplog.records]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_pair_once_per_epoch_whatever_the_number_of_processes(base: Path, shards: Path, world: int) -> None:
    config = tiny_config(base, shards, "optimiser.epochs=3")
    ranks = [steps_of(config, rank, world) for rank in range(world)]
    assert len(ranks[0]) == 3 * 6
    orders = []
    for epoch in range(3):
        seen = [
            item
            for step in range(epoch * 6, epoch * 6 + 6)
            for items in zip(*(r.items(step)[1] + [None] * 4 for r in ranks), strict=False)
            for item in items
            if item is not None
        ]
        assert sorted(seen) == list(range(22))
        orders.append(seen)
    assert orders[0] != orders[1]
    alone = steps_of(config)
    for step in (0, 5, 17):  # a step holds the same pairs, however many share it
        assert sorted(i for r in ranks for i in r.items(step)[1]) == sorted(alone.items(step)[1])


def test_a_batch_says_what_each_image_needs(config: Config) -> None:
    data = steps_of(config)[0]
    assert len(data.batches) == 1
    batch = data.batches[0]
    assert len(batch) == data.count == 4
    assert len(set(batch.words)) == len(batch.words)
    for b, item in enumerate(data.items):
        colour = ["red", "green", "blue", "grey"][item % 4]
        assert strings(batch, b) == ["a", colour, "image", "number", str(item)]
        assert batch.captions[batch.caption_rows[b, 0]] == f"a {colour} image number {item}"
        assert batch.keys[b].endswith(f":{item:09d}")
        assert batch.member[b, 0].tolist() == batch.word_valid[b].tolist()
        others = batch.other_captions()[b]
        assert others.tolist() == [text != batch.captions[batch.caption_rows[b, 0]] for text in batch.captions]
    assert not batch.given.any()
    assert not batch.negatives_valid.any()


def test_micro_batches_are_the_batch_in_parts(base: Path, shards: Path) -> None:
    whole = steps_of(tiny_config(base, shards))[1]
    parts = steps_of(tiny_config(base, shards, "optimiser.micro_batch=3"))[1]
    assert [len(batch) for batch in parts.batches] == [3, 1]
    assert torch.equal(torch.cat([b.pixels for b in parts.batches]), whole.batches[0].pixels)
    assert parts.items == whole.items


def test_negative_words_come_from_other_images(base: Path, shards: Path) -> None:
    config = tiny_config(base, shards, "loss.negatives=3", "optimiser.batch=8")
    batch = steps_of(config)[0].batches[0]
    assert batch.negative_rows.shape == (8, 3)
    for b in range(8):
        own = set(strings(batch, b))
        others = {
            batch.words[row] for row, v in zip(batch.negative_rows[b], batch.negatives_valid[b], strict=True) if v
        }
        assert len(others) == 3
        assert not others & own
        assert others <= {word for c in range(8) for word in strings(batch, c)}
    again = steps_of(config)[0].batches[0]
    assert torch.equal(batch.negative_rows, again.negative_rows)
    compared = steps_of(tiny_config(base, shards, "loss.floor=0.5", "loss.compared=5"))[0].batches[0]
    assert compared.negative_rows.shape[1] == 5


def test_a_batch_of_one_has_nothing_to_borrow(base: Path, shards: Path) -> None:
    config = tiny_config(base, shards, "loss.negatives=3", "optimiser.batch=1")
    assert not steps_of(config)[0].batches[0].negatives_valid.any()


def test_several_captions_of_a_image(base: Path, tmp_path: Path) -> None:
    captions = ["a dog", "Dog and cat", "the cat sleeps"]
    pairs = {"x": {"png": image(1), "json": json_bytes({"captions": captions})}}
    shard = write_tar(tmp_path / "several.tar", pairs)
    together = steps_of(tiny_config(base, shard, "data.captions=together"))[0].batches[0]
    assert strings(together, 0) == ["a", "dog", "and", "cat", "the", "sleeps"]
    assert together.member[0].int().tolist() == [[1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]]
    assert not together.other_captions().any()
    one = steps_of(tiny_config(base, shard, "optimiser.epochs=20"))
    drawn = {one[step].batches[0].captions[0] for step in range(20)}
    assert drawn == set(captions)


def test_stop_words_can_be_left_out(base: Path, shards: Path) -> None:
    batch = steps_of(tiny_config(base, shards, "data.stop_words=false"))[0].batches[0]
    assert "a" not in batch.words
    assert "image" in batch.words


def test_a_caption_without_words_is_no_obstacle(base: Path, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "dots.tar", {"x": {"png": image(1), "txt": b"the"}})
    batch = steps_of(tiny_config(base, shard, "data.stop_words=false"))[0].batches[0]
    assert not batch.word_valid.any()


def test_given_words_are_the_datas(base: Path, shards: Path, tmp_path: Path) -> None:
    import json

    source = PairSource(shards)
    tags = tmp_path / "tags.jsonl"
    lines = [
        {"shard": source.locate(i)[0], "key": source.locate(i)[1], "tags": [["Image", "big thing"]]}
        for i in range(len(source))
    ]
    tags.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    config = tiny_config(base, shards, "choice.by=given", f"data.tags='{tags}'")
    batch = steps_of(config)[0].batches[0]
    for b in range(4):
        words = strings(batch, b)
        assert words[-1] == "big thing"
        chosen = [w for w, g in zip(words, batch.given[b].tolist(), strict=False) if g]
        assert chosen == ["image", "big thing"]


@pytest.mark.parametrize("parser", ["spacy", "nltk"])
def test_nouns_by_a_parser_or_a_sentence(base: Path, shards: Path, parser: str) -> None:
    steps = steps_of(tiny_config(base, shards, "choice.by=nouns", f"choice.parser={parser}"))
    try:
        open_nouns(parser)
    except MissingExtra:
        with pytest.raises(MissingExtra, match=r"pip install|python -m"):
            steps[0]
        return
    batch = steps[0].batches[0]
    chosen = {w for w, g in zip(strings(batch, 0), batch.given[0].tolist(), strict=False) if g}
    assert "image" in chosen
    assert "a" not in chosen


def test_damaged_pairs_are_left_out_and_reported(base: Path, tmp_path: Path) -> None:
    pairs = {f"{n}": sample(n) for n in range(4)}
    pairs["1"] = {"png": b"not an image", "txt": b"a cat"}
    pairs["2"] = {"png": image(2), "txt": b"   "}
    shard = write_tar(tmp_path / "damaged.tar", pairs)
    data = steps_of(tiny_config(base, shard))[0]
    assert sorted(data.items) == [0, 3]
    assert sorted((d.key, d.reason) for d in data.damaged) == [("1", "broken image"), ("2", "empty caption")]
    assert len(data.batches[0]) == 2


def test_workers_change_nothing(base: Path, shards: Path) -> None:
    plain = list(load_steps(steps_of(tiny_config(base, shards)), 3))
    workers = list(load_steps(steps_of(tiny_config(base, shards, "data.workers=1")), 3))
    assert len(plain) == len(workers) == 3
    for a, b in zip(plain, workers, strict=True):
        assert a.items == b.items
        assert a.batches[0].words == b.batches[0].words
        assert torch.equal(a.batches[0].pixels, b.batches[0].pixels)


def test_a_batch_that_does_not_divide_is_refused(config: Config) -> None:
    with pytest.raises(InputError, match="does not divide"):
        steps_of(config, 0, 3)


def test_a_reading_process_that_the_system_ends_is_no_traceback(base: Path, shards: Path) -> None:
    """As the kernel does it when memory is full."""
    data = load_steps(steps_of(tiny_config(base, shards, "data.workers=1", "optimiser.epochs=50")), 0)
    next(data)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(OutOfMemory, match=r"shared memory .* lower"):
        list(data)
