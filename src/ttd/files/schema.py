"""Schemas of values read from files, checked leaf by leaf, with an error message for each violation.

A schema is a function that raises `Misfit` for a value that does not fit, and returns nothing. The small ones are
functions (`text`, `integer`), the others are made:

    RUN = fields({"settings": mapping(), "seed": integer}, {"notes": each(text)})
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

Schema = Callable[[Any], None]
_LARGEST = 1 << 63  # whole numbers beyond it fit into no array


class Misfit(ValueError):
    """A text that is not a document, or a value that does not fit its schema.

    Attributes:
        place: of the value, as in `settings.models[2]`; empty for the document.
        fault: the end of a sentence that begins with the document or place, as "is not a list".
    """

    def __init__(self, fault: str, place: str = "") -> None:
        super().__init__(f"{shown(place)} {fault}" if place else fault)
        self.fault, self.place = fault, place

    def below(self, step: str) -> Misfit:
        """The same, seen from the container that has the value at `step`."""
        return Misfit(self.fault, step + (f".{self.place}" if self.place[:1] not in ("", "[") else self.place))


def anything(value: Any) -> None:
    """Fits every value."""


def text(value: Any) -> None:
    """A text of whole characters: halves of a pair, which JSON can hold, cannot be written to any file."""
    any_text(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Misfit("holds half a character") from None


def any_text(value: Any) -> None:
    """A text, also of half characters, as which Python writes the bytes of a file's name that are not UTF-8."""
    if not isinstance(value, str):
        raise Misfit("is not a text")


def integer(value: Any) -> None:
    """A whole number of at most 64 bits."""
    if not isinstance(value, int) or isinstance(value, bool) or not -_LARGEST <= value < _LARGEST:
        raise Misfit("is not a whole number")


def count(value: Any) -> None:
    """A whole number from 0 on that a float holds exactly."""
    integer(value)
    if not 0 <= value <= 1 << 53:
        raise Misfit("is not a count")


def number(value: Any) -> None:
    """A finite number."""
    if not is_number(value):
        raise Misfit("is not a number")


def any_number(value: Any) -> None:
    """A number, also NaN or an infinite one."""
    if not (isinstance(value, float) and not math.isfinite(value)):
        number(value)


def flag(value: Any) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise Misfit("is not true or false")


def null(value: Any) -> None:
    """Null."""
    if value is not None:
        raise Misfit("is not null")


def within(low: float, high: float, schema: Schema = number) -> Schema:
    """A number from `low` to `high`, both allowed; `integer` as schema for whole ones."""

    def check(value: Any) -> None:
        schema(value)
        if not low <= value <= high:
            raise Misfit(f"is not from {low:g} to {high:g}")

    return check


def one_of(*values: str | int | float | bool | None) -> Schema:
    """One of a few values."""

    def check(value: Any) -> None:
        if not any(type(value) is type(one) and value == one for one in values):
            raise Misfit(f"is not {' or '.join(json.dumps(one) for one in values)}")

    return check


def either(*schemas: Schema) -> Schema:
    """A value that fits one of the schemas; the sentence is that of the last one that came deepest."""

    def check(value: Any) -> None:
        faults: list[Misfit] = []
        for schema in schemas:
            try:
                return schema(value)
            except Misfit as fault:
                faults.append(fault)
        deepest = max(faults, key=lambda fault: len(fault.place))
        if deepest.place:
            raise deepest
        said = [fault.fault for fault in faults]
        # What is of the right kind and still wrong ("holds half a character") says more than what it is not.
        telling = [fault for fault in said if not fault.startswith("is not ")]
        raise Misfit(telling[0] if telling else "is " + " and ".join(dict.fromkeys(one[3:] for one in said)))

    return check


def optional(schema: Schema) -> Schema:
    """A value that fits, or null."""

    def check(value: Any) -> None:
        if value is not None:
            schema(value)

    return check


def each(schema: Schema = anything, length: int | None = None) -> Schema:
    """A list whose entries fit, of `length` entries where that is given."""

    def check(value: Any) -> None:
        if not isinstance(value, list):
            raise Misfit("is not a list")
        if length is not None and len(value) != length:
            raise Misfit(f"is not a list of {length}")
        for place, inner in enumerate(value):
            try:
                schema(inner)
            except Misfit as fault:
                raise fault.below(f"[{place}]") from None

    return check


def entries(*schemas: Schema) -> Schema:
    """A list with as many entries, each of which fits its own schema."""

    def check(value: Any) -> None:
        each(anything, len(schemas))(value)
        for place, (schema, inner) in enumerate(zip(schemas, value, strict=True)):
            _inner(schema, f"[{place}]", inner)

    return check


def mapping(schema: Schema = anything) -> Schema:
    """An object with any names, whose values fit."""

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise Misfit("is not an object")
        for name, inner in value.items():
            _inner(schema, name, inner)

    return check


def fields(required: Mapping[str, Schema], maybe: Mapping[str, Schema] | None = None, *, others: bool = True) -> Schema:
    """An object with certain names.

    Args:
        required: the names that must be there, with their schemas.
        maybe: those that may be missing.
        others: whether further names, with any values, are allowed.
    """
    known = {**required, **(maybe or {})}

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise Misfit("is not an object")
        for name in required:
            if name not in value:
                raise Misfit(f"has no {json.dumps(name)}")
        for name, schema in known.items():
            if name in value:
                _inner(schema, name, value[name])
        if not others and (strange := [name for name in value if name not in known]):
            raise Misfit(f"has the unknown name {brief(json.dumps(strange[0]))}")

    return check


def _inner(schema: Schema, name: str, value: Any) -> None:
    try:
        schema(value)
    except Misfit as fault:
        raise fault.below(name) from None


def is_number(value: Any) -> bool:
    """Whether a value is a number that is finite as a float too; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False


def shown(place: str) -> str:
    """A place or name in quotation marks, for a message."""
    return brief(json.dumps(place, ensure_ascii=False).encode("utf-8", "backslashreplace").decode())


def brief(text: str) -> str:
    """One line of at most 120 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 120 else f"{line[:119]}…"
