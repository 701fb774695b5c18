"""Pickles of plain data come back; nothing in any file can run or claim memory."""

from __future__ import annotations

import collections
import copyreg
import datetime
import os
import pickle
import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttd.errors import InputError
from ttd.evaluation.datasets.refcoco import read_plain_pickle

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


class Runs:
    """Unpickled by the usual means, it writes a file."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PLAIN, st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_plain_data_comes_back(tmp_path: Path, content: Any, protocol: int) -> None:
    path = tmp_path / "plain.p"
    path.write_bytes(pickle.dumps(content, protocol))
    assert read_plain_pickle(path) == content
    path.write_bytes(pickle.dumps((content, b"bytes"), 3 + protocol % 3))  # older protocols write bytes as a call
    assert read_plain_pickle(path) == (content, b"bytes")


def test_what_python_2_wrote_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "refs(unc).p"
    path.write_bytes(b"(lp0\n(dp1\nS'sent'\np2\nS'the caf\\xc3\\xa9'\np3\nsS'ann_id'\np4\nI7\nsS'big'\nL12L\nsa.")
    assert read_plain_pickle(path) == [{"sent": "the café", "ann_id": 7, "big": 12}]
    path.write_bytes(b"\x80\x02]q\x00U\x02\xff\xfea.")
    assert read_plain_pickle(path) == ["\udcff\udcfe"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["system", "popen", "eval", "getattr", "date", "counter", "array", "nested"])
def test_nothing_runs(kind: str, protocol: int, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "hostile.p"
    touch = f"touch {trace}"
    content: Any = {
        "system": Runs(os.system, touch),
        "popen": Runs(subprocess.check_call, ["touch", str(trace)]),
        "eval": Runs(eval, f"open({str(trace)!r}, 'w')"),
        "getattr": Runs(getattr, (1).__class__, "mro"),
        "date": datetime.date(2020, 1, 1),
        "counter": collections.Counter("abc"),
        "array": np.arange(3),
        "nested": [{"split": "val", "sentences": [Runs(os.system, touch)]}],
    }[kind]
    path.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(InputError, match="could run code"):
        read_plain_pickle(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Runs(os.system, touch)))  # else this test could not fail
    assert trace.exists()


def test_other_ways_in_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "hostile.p"
    registered = 240
    copyreg.add_extension("os", "system", registered)
    pickle.loads(b"\x82" + bytes([registered]) + b".")  # from now on a registered extension is known without a name
    try:
        ways = (
            b"\x82" + bytes([registered]) + b"(S'true'\ntR.",  # a registered extension
            b"(S'true'\nios\nsystem\n.",  # INST
            b"Psomething\n.",  # a persistent id
            b"}(S'a'\nS'b'\ndb.",  # BUILD of a dictionary
            b"]]R.",  # a call of a list
            b"\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        )
        for content in ways:
            path.write_bytes(content)
            with pytest.raises(InputError):
                read_plain_pickle(path)
    finally:
        copyreg.remove_extension("os", "system", registered)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle at all",
        b"\x80\x63.",
        b"N",
        b"(((((",
        b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",  # a frame longer than any file
        b"B" + struct.pack("<I", 2**32 - 1) + b"x.",
        b"\x8a\xff" + b"\x01" * 3,
        b"I12\nx",
        b"h\x07.",
    ],
)
def test_damage_is_a_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable pickle"):
        read_plain_pickle(path)


def test_a_place_in_the_memo_claims_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(b"Nr" + struct.pack("<I", 2**32 - 1) + b".")
    assert read_plain_pickle(path) is None  # the unpickler in C would claim 64 GB here


def test_any_damaged_byte_gives_data_or_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "refs.p"
    whole = pickle.dumps([{"split": "val", "ann_id": 3, "sentences": [{"sent": "dog", "sent_id": 1}]}], 2)
    rng = random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole[: rng.randint(1, len(whole))])
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(bytes(damaged))
        try:
            content = read_plain_pickle(path)
        except InputError:
            continue
        assert content is None or type(content).__module__ == "builtins"


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_plain_pickle(tmp_path / "refs.p")
    with pytest.raises(InputError, match="cannot be read"):
        read_plain_pickle(tmp_path)
