"""The table of visible words: every token of every caption with its score, in Parquet, for queries and for training.

Long: a row for each token (`LONG`). Nested: a row for each pair (`NESTED`), with the same fields. Nothing is left out,
so each reader filters by its own rule; `chosen_words` gives the selected words of either form, and of a table
(shard, key, tags) from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ttd.data.bad_samples import NO_ANSWER, BadSample
from ttd.data.rows import jsonl_rows
from ttd.data.shard import Shard
from ttd.data.tables import PAIR, column_names, numbered, read_table
from ttd.errors import InputError
from ttd.files.schema import each, either, fields, optional, text


class Token(NamedTuple):
    """One token of a caption, or a word that a language model named and the caption does not have.

    Attributes:
        word: as written; None in the one row of a caption without tokens.
        start, end: characters `caption[start:end]`; None for a word that is not there.
        score: by the model; None where the token was not a candidate, or a tagger of the text chose.
        percentile: 0..100, of negative words that it exceeds; None without them.
        selected: whether it counts as visible.
        is_stop: a function word ("the", "on", "'s").
        is_punct: punctuation alone.
        is_unknown: outside the vocabulary of a small model.
    """

    word: str | None = None
    start: int | None = None
    end: int | None = None
    score: float | None = None
    percentile: float | None = None
    selected: bool = False
    is_stop: bool = False
    is_punct: bool = False
    is_unknown: bool = False


# The tokens of each caption of a pair; None where the tagger gave no answer for it.
Tokens = Sequence[Sequence[Token]] | None

_TOKEN = [
    pa.field("word", pa.string()),
    pa.field("start", pa.int32()),
    pa.field("end", pa.int32()),
    pa.field("score", pa.float32()),
    pa.field("percentile", pa.float32()),
    *(pa.field(name, pa.bool_(), nullable=False) for name in ("selected", "is_stop", "is_punct", "is_unknown")),
]
LONG = pa.schema([*PAIR, pa.field("caption", pa.int32()), *_TOKEN])
NESTED = pa.schema([*PAIR, pa.field("words", pa.list_(pa.list_(pa.struct(_TOKEN))))])
TAGS = pa.schema([*PAIR, pa.field("tags", pa.list_(pa.list_(pa.string())))])
_TAGS_VALUE = optional(either(each(text), each(each(text))))
_LINE = fields({"shard": text, "key": text, "tags": _TAGS_VALUE})


def token_table(pairs: Iterable[tuple[str, str, Tokens]], form: str = "long") -> pa.Table:
    """The rows of pairs (shard, key, tokens).

    In the long form a caption without tokens has one row whose word is null, and a pair without an answer one row whose
    caption is null too; in the nested form `words` is null there.
    """
    if form == "nested":
        rows = [
            (shard, key, None if captions is None else [[t._asdict() for t in tokens] for tokens in captions])
            for shard, key, captions in pairs
        ]
        return _columns(rows, NESTED)
    return _columns([row for shard, key, captions in pairs for row in _long(shard, key, captions)], LONG)


def _long(shard: str, key: str, captions: Tokens) -> Iterator[tuple[object, ...]]:
    if captions is None:
        yield shard, key, None, *Token()
        return
    for number, tokens in enumerate(captions):
        for token in tokens or [Token()]:
            yield shard, key, number, *token


def _columns(rows: Sequence[Sequence[object]], schema: pa.Schema) -> pa.Table:
    return pa.table([[row[i] for row in rows] for i in range(len(schema))], schema=schema)


def chosen_words(path: Path) -> Iterator[pa.RecordBatch]:
    """The selected words of a table in any form: shard, key, and `tags` as in `TAGS`.

    `tags` has for every caption its distinct words (case aside), null where there was no answer.

    Raises:
        InputError: the file cannot be read, is none of these tables, or its rows are out of order.
    """
    names = column_names(path)
    if "words" in names and "tags" not in names:
        for batch in read_table(path, NESTED):
            yield _of_nested(batch)
    elif "word" in names and "tags" not in names:
        for rows in _undivided(read_table(path, LONG)):
            yield _of_long(rows, path)
    else:
        yield from read_table(path, TAGS)


def _of_nested(batch: pa.RecordBatch) -> pa.RecordBatch:
    words = batch.column("words")
    captions = words.flatten()
    tokens = captions.flatten()
    counts = pc.fill_null(pc.list_value_length(captions), 0).to_numpy()
    of_caption = np.repeat(np.arange(len(captions)), counts)
    per_pair = pc.fill_null(pc.list_value_length(words), 0).to_numpy()
    tags = _selected(tokens.field("word"), tokens.field("selected"), of_caption, per_pair, words.is_null())
    return pa.RecordBatch.from_arrays([batch.column("shard"), batch.column("key"), tags], schema=TAGS)


def _undivided(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Long rows in pieces that do not divide a pair."""
    held: pa.RecordBatch | None = None
    for batch in batches:
        rows = batch if held is None else pa.Table.from_batches([held, batch]).combine_chunks().to_batches()[0]
        starts = _starts(rows)
        if len(starts) > 1:
            yield rows.slice(0, starts[-1])
        held = rows.slice(starts[-1]) if len(starts) else None
    if held is not None:
        yield held


def _starts(rows: pa.RecordBatch) -> NDArray[np.int64]:
    """Where pairs begin."""
    codes = [rows.column(name).dictionary_encode().indices.to_numpy() for name in ("shard", "key")]
    new = np.zeros(len(rows), bool)
    new[:1] = True
    for code in codes:
        new[1:] |= code[1:] != code[:-1]
    return np.flatnonzero(new)


def _of_long(rows: pa.RecordBatch, path: Path) -> pa.RecordBatch:
    starts = _starts(rows)
    caption = pc.fill_null(rows.column("caption"), -1).to_numpy()
    new = np.zeros(len(rows), bool)
    new[starts] = True
    new[1:] |= caption[1:] != caption[:-1]
    firsts = np.flatnonzero(new)
    per_pair = np.diff(np.append(np.searchsorted(firsts, starts), len(firsts)))
    place = np.arange(len(firsts)) - np.repeat(np.cumsum(per_pair) - per_pair, per_pair)
    unanswered = caption[starts] == -1
    wrong = caption[firsts] != np.where(np.repeat(unanswered & (per_pair == 1), per_pair), -1, place)
    if wrong.any():
        key = rows.column("key")[int(firsts[wrong.argmax()])].as_py()
        raise InputError(f"{path}: the captions of pair {key!r} do not follow each other: sort by shard, key, caption")
    of_caption = np.cumsum(new) - 1
    tags = _selected(rows.column("word"), rows.column("selected"), of_caption, per_pair, pa.array(unanswered))
    return pa.RecordBatch.from_arrays(
        [rows.column("shard").take(pa.array(starts)), rows.column("key").take(pa.array(starts)), tags], schema=TAGS
    )


def _selected(
    words: pa.Array, selected: pa.Array, of_caption: NDArray[np.int64], per_pair: NDArray[np.int64], null: pa.Array
) -> pa.Array:
    """For pairs of `per_pair` captions the distinct selected words; `of_caption` ascends over the tokens."""
    picked = np.flatnonzero(pc.and_(selected, words.is_valid()).to_numpy(zero_copy_only=False))
    texts, owners = words.take(pa.array(picked)), of_caption[picked]
    codes = pc.utf8_lower(texts).dictionary_encode().indices.to_numpy().astype(np.int64)
    _, first = np.unique(owners * (len(codes) + 1) + codes, return_index=True)
    first.sort()
    ends = np.searchsorted(owners[first], np.arange(per_pair.sum() + 1)).astype(np.int32)
    captions = pa.ListArray.from_arrays(pa.array(ends), texts.take(pa.array(first)))
    offsets = pa.array(np.append(0, np.cumsum(per_pair)).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, captions, mask=null)


class ChosenWords:
    """Words chosen beforehand, for all pairs of a source: in Arrow's memory, shared by forked workers.

    Args:
        path: Parquet in any form (`chosen_words`), JSONL with shard, key, tags, or a folder of such Parquet files;
            null for `tags` stands for no answer of the tagger.
        shards: of the source.
        kept: as `ttd.data.tables.kept_rows`, None for all pairs.
    """

    def __init__(self, path: Path, shards: Sequence[Shard], kept: NDArray[np.int64] | None) -> None:
        self.path = path
        total = sum(len(shard) for shard in shards)
        wanted = np.arange(total) if kept is None else kept
        rows = np.full(total, -1, np.int64)  # by pair: its row in the table
        pieces: list[pa.Array] = []
        filled = 0
        for file in word_files(path):
            for numbers, batch in numbered(_pieces(file), shards):
                chosen = (numbers >= 0) & np.isin(numbers, wanted)
                pieces.append(batch.column("tags").filter(pa.array(chosen)))
                rows[numbers[chosen]] = filled + np.arange(chosen.sum())
                filled += int(chosen.sum())
        if not filled:
            raise InputError(f"{path} has tags for none of the pairs: it was made for other shards")
        self._rows = rows[wanted]
        self._tags = pa.chunked_array(pieces, TAGS.field("tags").type)

    def of(self, index: int, shard: str, key: str, captions: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """The words of a pair's captions.

        Raises:
            BadSample: the tagger had no answer for it.
            InputError: there is nothing about this pair.
        """
        row = int(self._rows[index])
        if row < 0:
            raise InputError(f"{self.path} has no tags for pair {key!r}: run ttd data tag on all shards")
        tags = self._tags[row].as_py()
        if tags is None:
            raise BadSample(NO_ANSWER, shard, key)
        if len(tags) != len(captions):
            raise InputError(
                f"{self.path} has tags for {len(tags)} captions of pair {key!r}, which has {len(captions)}: "
                "it was made for other data"
            )
        return tuple(tuple(words) for words in tags)


def word_files(path: Path) -> list[Path]:
    """The files of a table: all Parquet files of a folder, in order, or the file itself.

    Raises:
        InputError: the folder has none.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} has no Parquet files: give the folder that ttd data tag wrote")
    return files


def _pieces(path: Path) -> Iterator[pa.RecordBatch]:
    return iter(_json_lines(path).to_batches()) if path.suffix.lower() == ".jsonl" else chosen_words(path)


def _json_lines(path: Path) -> pa.Table:
    rows: list[tuple[str, str, object]] = []
    remedy = 'each line needs "shard", "key" and "tags", a list of words or one such list for each caption'
    for _, record in jsonl_rows(path, schema=_LINE, remedy=remedy):
        words = record["tags"]
        is_whole = words is None or (words and isinstance(words[0], list))
        rows.append((record["shard"], record["key"], words if is_whole else [words]))
    return _columns(rows, TAGS)


def some_pairs(path: Path, count: int) -> list[tuple[str, str, Tokens]]:
    """At most `count` pairs of a table (shard, key, tokens of each caption), evenly over its files and their rows.

    Of a table (shard, key, tags) only the chosen words are known.

    Raises:
        InputError: as `chosen_words`.
    """
    files = word_files(path)
    step = max(1, len(files) / count)
    files = [files[int(place * step)] for place in range(min(len(files), count))]
    found: list[tuple[str, str, Tokens]] = []
    for number, file in enumerate(files):
        wanted = -(-(count - len(found)) // (len(files) - number))
        total = sum(len(_starts(piece)) for piece in _whole_pairs(file))
        places = set(np.unique(np.arange(wanted) * max(1.0, total / wanted)).astype(int).tolist())
        first = 0
        for piece in _whole_pairs(file):
            starts = np.append(_starts(piece), len(piece))
            inside = [place - first for place in sorted(places) if first <= place < first + len(starts) - 1]
            found += [_read_pair(piece.slice(starts[n], starts[n + 1] - starts[n])) for n in inside]
            first += len(starts) - 1
    return found


def _whole_pairs(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a table, in pieces that do not divide a pair."""
    names = column_names(path)
    if "tags" in names or "words" in names:
        yield from read_table(path, TAGS if "tags" in names else NESTED)
    else:
        yield from _undivided(read_table(path, LONG))


def _read_pair(rows: pa.RecordBatch) -> tuple[str, str, Tokens]:
    records = rows.to_pylist()
    first = records[0]
    captions: list[list[Token]] = []
    if "caption" in first:
        for row in records:
            number = row.pop("caption")
            if number is None:
                return first["shard"], first["key"], None
            if number == len(captions):
                captions.append([])
            captions[-1].append(Token(**{name: row[name] for name in Token._fields}))
        return first["shard"], first["key"], captions
    words = first.get("words", first.get("tags"))
    if words is None:
        return first["shard"], first["key"], None
    if "tags" in first:
        captions = [[Token(word, selected=True) for word in several] for several in words]
    else:
        captions = [[Token(**token) for token in several] for several in words]
    return first["shard"], first["key"], captions
