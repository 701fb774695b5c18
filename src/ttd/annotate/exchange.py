"""Annotations in the formats of other tools: COCO JSON and Label Studio JSON, both with masks as run lengths.

What the other format cannot hold (the caption, its words, clicks, verdict) is stored next to it under "ttd", so that
reading back gives the same records. A file of another tool has no such entry: its labels are the words, and the caption
is taken from the file or made of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttd.annotate.export import Exporter, image_file, write_image
from ttd.annotate.masks import Mask
from ttd.annotate.records import ACCEPTED, Record
from ttd.annotate.store import AnnotationStore
from ttd.errors import InputError
from ttd.evaluation.datasets.coco import instance_mask
from ttd.files import write_file
from ttd.files.documents import read_json
from ttd.files.safe_paths import check_name
from ttd.files.schema import anything, count, each, either, fields, integer, mapping, text
from ttd.images import read_image
from ttd.results import coco_annotation
from ttd.text.words import split_words

_SIZE_BITS, _VALUE_BITS = (3, 4, 8, 16), 8  # of Label Studio's run lengths
_CHANNELS = 4  # a mask there is the alpha of an image RGBA


def to_coco(records: Iterable[Record]) -> dict[str, Any]:
    """A data set in COCO's layout: every word is a category, every mask an annotation with `iscrowd` 0."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for number, record in enumerate(records, 1):
        height, width = record.size
        images.append({"id": number, "file_name": record.image, "height": height, "width": width, "ttd": _rest(record)})
        for word, mask in record.masks.items():
            category = categories.setdefault(word, len(categories) + 1)
            one = {**coco_annotation(mask, number), "category_id": category, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **one})
    named = [{"id": category, "name": word} for word, category in categories.items()]
    return {"images": images, "annotations": annotations, "categories": named}


_IMAGE = fields({"id": either(integer, text), "file_name": text, "height": count, "width": count})
_ANNOTATION = fields({"image_id": either(integer, text), "category_id": integer, "segmentation": anything})
_CATEGORY = fields({"id": integer, "name": text})
_COCO = fields({"images": each(_IMAGE), "annotations": each(_ANNOTATION), "categories": each(_CATEGORY)})


def from_coco(content: Mapping[str, Any], where: object) -> list[Record]:
    """The records of a data set in COCO's layout, of ours or of another tool's.

    Raises:
        InputError: a mask is damaged or does not fit its image, or a name cannot be a file's.
    """
    names = {row["id"]: row["name"].lower() for row in content["categories"]}
    masks: dict[Any, dict[str, Mask]] = {row["id"]: {} for row in content["images"]}
    sizes = {row["id"]: (row["height"], row["width"]) for row in content["images"]}
    for number, row in enumerate(content["annotations"]):
        image, place = row["image_id"], f"{where}, annotation {number + 1}"
        if image not in masks or row["category_id"] not in names:
            raise InputError(f"{place} names an image or a category that is not in the file: correct it")
        _add(masks[image], names[row["category_id"]], _coco_mask(row["segmentation"], sizes[image], place))
    return [
        _record(row.get("ttd"), row["file_name"], row.get("caption"), masks[row["id"]], sizes[row["id"]], where)
        for row in content["images"]
    ]


def _coco_mask(segmentation: Any, size: tuple[int, int], where: object) -> Mask:
    """A mask from run lengths (packed or a list) or polygons."""
    try:
        return instance_mask(segmentation, size)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{where}: the mask is damaged ({type(error).__name__}): correct it") from None


def to_label_studio(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Tasks of Label Studio: images with brush labels, one for each word's mask; `data` keeps what is ours."""
    tasks = []
    for number, record in enumerate(records, 1):
        height, width = record.size
        result = [
            {
                "id": f"{number}-{place}",
                "type": "brushlabels",
                "from_name": "words",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": encode_runs(mask), "brushlabels": [word]},
            }
            for place, (word, mask) in enumerate(record.masks.items())
        ]
        data = {"image": f"images/{record.image}", "caption": record.caption, "ttd": _rest(record)}
        tasks.append({"id": number, "data": data, "annotations": [{"id": number, "result": result}]})
    return tasks


_RESULT = fields({"type": text, "value": mapping()}, {"original_width": count, "original_height": count})
_DATA = fields({"image": text}, {"caption": text})
_TASKS = each(fields({"data": _DATA, "annotations": each(fields({"result": each(_RESULT)}))}))


def from_label_studio(content: Sequence[Mapping[str, Any]], where: object) -> list[Record]:
    """The records of Label Studio's tasks: of each task its last annotation; raises as `from_coco`."""
    records = []
    for number, task in enumerate(content, 1):
        masks: dict[str, Mask] = {}
        rest, data = task["data"].get("ttd"), task["data"]
        size = tuple(rest["size"]) if isinstance(rest, dict) and isinstance(rest.get("size"), list) else (0, 0)
        for row in task["annotations"][-1]["result"] if task["annotations"] else ():
            if row["type"] != "brushlabels":
                continue
            place = f"{where}, task {number}"
            size = (row.get("original_height", 0), row.get("original_width", 0))
            labels, runs = row["value"].get("brushlabels"), row["value"].get("rle")
            if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
                raise InputError(f"{place}: a mask has no label: correct it")
            for label in labels:
                _add(masks, label.lower(), decode_runs(runs, size, place))
        file_name = PurePosixPath(data["image"].split("?")[0]).name
        records.append(_record(rest, file_name, data.get("caption"), masks, size, where))
    return records


def encode_runs(mask: Mask) -> list[int]:
    """A mask bool [H,W] as Label Studio's run lengths: bytes of a stream of bits.

    32 bits: the number of values (four for each pixel); 5: bits of a value - 1; 4 times 4: the possible bits of a
    length - 1. Then for each run: 1 (after a 0 values would follow one by one), 2 bits: which of the four, the
    length - 1, the value.
    """
    values = np.repeat(mask.ravel(), _CHANNELS)
    starts = np.flatnonzero(np.diff(values, prepend=not values[0])) if values.size else np.zeros(0, int)
    lengths = np.diff(starts, append=values.size)
    parts = [f"{values.size:032b}{_VALUE_BITS - 1:05b}", *(f"{bits - 1:04b}" for bits in _SIZE_BITS)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        byte = f"{255 * int(values[start]):08b}"
        while length > 0:
            run = min(length, 1 << _SIZE_BITS[-1])
            which = next(index for index, bits in enumerate(_SIZE_BITS) if run <= 1 << bits)
            parts.append(f"1{which:02b}{run - 1:0{_SIZE_BITS[which]}b}{byte}")
            length -= run
    stream = "".join(parts)
    stream += "0" * (-len(stream) % 8)
    return [int(stream[at : at + 8], 2) for at in range(0, len(stream), 8)]


def decode_runs(runs: Any, size: tuple[int, ...], where: object) -> Mask:
    """The reverse of `encode_runs`, also of what Label Studio itself writes; a pixel belongs where its alpha is not 0.

    Raises:
        InputError: it is damaged, or not of this size.
    """
    damaged = InputError(
        f"{where}: the run lengths of a mask are damaged or of another size than its image: correct them"
    )
    if not isinstance(runs, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in runs):
        raise damaged
    stream = "".join(f"{byte:08b}" for byte in runs)
    at = 0

    def read(bits: int) -> int:
        nonlocal at
        at += bits
        if at > len(stream):
            raise damaged
        return int(stream[at - bits : at], 2)

    total, value_bits = read(32), read(5) + 1
    size_bits = [read(4) + 1 for _ in range(4)]
    if total != size[0] * size[1] * _CHANNELS or not total:
        raise damaged
    values = np.zeros(total, np.bool_)
    done = 0
    while done < total:
        same = read(1)
        end = done + 1 + read(size_bits[read(2)])
        if end > total:
            raise damaged
        if same:
            values[done:end] = read(value_bits) > 0
        else:
            values[done:end] = [read(value_bits) > 0 for _ in range(end - done)]
        done = end
    alpha: NDArray[np.bool_] = values.reshape(*size, _CHANNELS)[..., -1]
    return alpha.copy()


def _add(masks: dict[str, Mask], word: str, mask: Mask) -> None:
    masks[word] = masks[word] | mask if word in masks else mask


def _rest(record: Record) -> dict[str, Any]:
    """All of a record but its masks."""
    content = replace(record, masks={}).to_dict()
    del content["masks"]
    return content


def _record(
    rest: Any, file_name: str, caption: Any, masks: Mapping[str, Mask], size: tuple[int, ...], where: object
) -> Record:
    """A record from the content of "ttd", or made for an image of another tool; the masks may have been edited."""
    name = check_name(PurePosixPath(file_name.replace("\\", "/")).name, where, "image") if masks or rest is None else ""
    if rest is not None:
        record = Record.from_json(json.dumps({**rest, "masks": {}}) if isinstance(rest, dict) else "[]", where)
        kept = dict.fromkeys([*record.true, *masks])
        strange = [word for word in masks if word not in record.words]
        if strange:
            raise InputError(f"{where}: {strange[0]!r} is not a word of the caption of {record.id}: correct the label")
        if any(mask.shape != record.size for mask in masks.values()):
            raise InputError(f"{where}: a mask of {record.id} has another size than its image: correct it")
        true = tuple(word for word in dict.fromkeys(record.words) if word in kept)
        return replace(record, true=true, masks=dict(masks))
    written = caption if isinstance(caption, str) and caption.strip() else " ".join(masks)
    words = tuple(token.text.lower() for token in split_words(written))
    if missing := [word for word in masks if word not in words]:
        raise InputError(f"{where}: the label {missing[0]!r} is not a word of the caption {written!r}: correct it")
    identifier = name.rpartition(".")[0] or name
    true = tuple(word for word in dict.fromkeys(words) if word in masks)
    found = {word: mask for word, mask in masks.items() if mask.any()}
    return Record(
        id=identifier,
        version=0,
        status=ACCEPTED,
        shard="",
        key=identifier,
        caption_index=0,
        caption=written,
        words=words,
        true=true,
        size=(int(size[0]), int(size[1])),
        masks=found,
        mask_source="imported",
        image=name,
    )


FORMATS: Mapping[str, Callable[[Iterable[Record]], Any]] = {"coco": to_coco, "label-studio": to_label_studio}


def write_exchanged(root: Path, path: Path, kind: str) -> int:
    """Writes all annotations of a TagMask set into a file of a kind of `FORMATS`, whole or not at all.

    Returns:
        how many.

    Raises:
        InputError: it is not such a set, or an annotation in it is damaged.
    """
    if not (root / "annotations").is_dir():
        raise InputError(f"{root} is not a TagMask set that was annotated here: name its folder")
    records = list(AnnotationStore(root).records())
    write_file(path, json.dumps(FORMATS[kind](records)) + "\n")
    return len(records)


def read_exchanged(path: Path) -> list[Record]:
    """The records in a file of either format, which its content tells apart; raises `InputError` for anything else."""
    content = read_json(path)
    if isinstance(content, list):
        return from_label_studio(read_json(path, _TASKS), path)
    return from_coco(read_json(path, _COCO), path)


@dataclass(frozen=True)
class Imported:
    """What became of the records of a file: how many are new, how many replaced another; id and reason of the rest."""

    new: int
    replaced: int
    skipped: tuple[tuple[str, str], ...]


def import_records(records: Iterable[Record], images: Path, out: Path) -> Imported:
    """Writes records into a TagMask set, new or annotated before.

    Args:
        records: of `read_exchanged`.
        images: the folder with their images.
        out: the set's folder.

    Raises:
        InputError: `out` cannot hold the set.
    """
    exporter = Exporter(out.absolute())
    store = AnnotationStore(out, exporter.export)
    new = replaced = 0
    skipped = []
    for record in records:
        try:
            before = store.get(record.id)
            name, content = _image(record, images) if record.status == ACCEPTED else ("", b"")

            def write(name: str = name, content: bytes = content) -> None:
                if name:
                    write_image(store.root, name, content)

            store.put(replace(record, image=name), before.version if before else 0, write)
        except (InputError, OSError) as error:
            skipped.append((record.id, str(error)))
            continue
        new, replaced = new + (before is None), replaced + (before is not None)
    return Imported(new, replaced, tuple(skipped))


def _image(record: Record, images: Path) -> tuple[str, bytes]:
    """Name in the set and content of a record's image; raises `InputError` where it is missing or another one."""
    path = images / record.image  # one part of a path: the name was checked
    if read_image(path).size != record.size[::-1]:
        raise InputError(f"{record.image} has another size than its masks: name the folder of the right images")
    return image_file(record.id, path.read_bytes())
