"""JSON and TOML files: what is read, and the sentence for what is not."""

import ast
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ttd
from ttd.errors import InputError, ModelError
from ttd.files.documents import MOST_LEVELS, parse_json, parse_toml, read_json, read_toml
from ttd.files.schema import (
    Misfit,
    any_number,
    any_text,
    anything,
    each,
    either,
    fields,
    flag,
    integer,
    mapping,
    null,
    number,
    one_of,
    optional,
    text,
    within,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_reads_what_python_writes(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON (expecting value in line 1, column 1)"),
        (b"{\n 'a': 1}", "is not JSON (expecting property name enclosed in double quotes in line 2, column 2)"),
        (b'{"a": "\xff"}', "is not UTF-8 (byte 7)"),
        (b"[NaN]", "holds NaN, which is not a number"),
        (b"-Infinity", "holds -Infinity, which is not a number"),
        (b"1" * 5000, "holds a number that is too long"),
        (b"[" * 100_000, f"is nested deeper than {MOST_LEVELS} levels"),
        (b'{"a":' * 100_000, f"is nested deeper than {MOST_LEVELS} levels"),
        (b"[" * 65 + b"]" * 65, f"is nested deeper than {MOST_LEVELS} levels"),
    ],
)
def test_says_what_is_wrong_with_a_text(tmp_path, content, said):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ModelError) as error:
        read_json(path, error=ModelError, remedy="make it again")
    assert str(error.value) == f"{path} {said}: make it again"


def test_nesting_is_bounded_exactly():
    assert parse_json("[" * MOST_LEVELS + "]" * MOST_LEVELS)
    with pytest.raises(Misfit, match="nested"):
        parse_json('{"]]]]": ' * (MOST_LEVELS + 1) + "1" + "}" * (MOST_LEVELS + 1))
    with pytest.raises(Misfit, match="nested"):
        parse_toml(".".join("a" * 200) + " = 1")
    with pytest.raises(Misfit, match="nested"):
        parse_toml("a = " + "[" * 50_000)


def test_a_file_is_a_plain_file_of_bounded_size(tmp_path):
    with pytest.raises(InputError, match=r"a.json does not exist: restore it"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="is a folder and not a file"):
        read_json(tmp_path)
    (tmp_path / "a.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="larger than 5 bytes"):
        read_json(tmp_path / "a.json", most=5)
    assert read_json(tmp_path / "a.json", most=6) == [1, 2]
    with pytest.raises(InputError, match=r"cannot be a path|does not exist"):
        read_json(f"{tmp_path}/\0")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InputError, match="pipe is not a file"):
            read_json(tmp_path / "pipe")


def test_numbers_that_python_alone_writes_are_read_where_asked_for():
    assert parse_json("[Infinity, 1]", each(any_number), nan=True) == [float("inf"), 1]
    with pytest.raises(Misfit, match=r"\[0\]. is not a number"):
        parse_json("[NaN]", each(number), nan=True)


@pytest.mark.parametrize(
    ("schema", "fitting", "others"),
    [
        (text, ["", "ä"], [None, 1, ["a"], "\ud800"]),
        (any_text, ["", "\udcff"], [None, 1, {}]),
        (integer, [0, -(2**63)], [True, 1.0, "1", None, 2**63]),
        (number, [0, 1.5, 10**300], [True, "1", None, float("nan"), float("inf"), 10**400]),
        (any_number, [0, float("nan")], [True, "1", None]),
        (flag, [True, False], [0, 1, None, "true"]),
        (null, [None], [0, "", [], False]),
        (within(0, 1), [0, 0.5, 1], [-0.1, 1.1, True, float("nan")]),
        (within(1, 9, integer), [1, 9], [0, 1.5, 10]),
        (one_of("a", 1), ["a", 1], ["b", True, 1.0, None, []]),
        (either(text, each(text)), ["a", ["a"], []], [1, [1], None]),
        (optional(integer), [None, 3], ["", 1.5]),
        (each(integer, 2), [[1, 2]], [[1], [1, None], {}, "ab"]),
        (mapping(integer), [{}, {"a": 1}], [{"a": None}, [], None]),
        (
            fields({"a": integer}, {"b": text}),
            [{"a": 1}, {"a": 1, "b": "", "c": 0}],
            [{}, {"a": "1"}, {"a": 1, "b": 2}],
        ),
        (fields({"a": anything}, others=False), [{"a": 1}], [{"a": 1, "c": 0}, [], "a"]),
    ],
)
def test_a_schema_takes_what_fits_and_nothing_else(schema, fitting, others):
    for value in fitting:
        schema(value)
    for value in others:
        with pytest.raises(Misfit):
            schema(value)


def test_the_sentence_names_the_place(tmp_path):
    path = tmp_path / "run.json"
    schema = fields({"settings": mapping(each(fields({"size": either(integer, null)})))})
    path.write_text('{"settings": {"models": [{"size": 1}, {"size": "x"}]}}')
    with pytest.raises(InputError) as error:
        read_json(path, schema, remedy="run it again")
    assert str(error.value) == f'{path}: "settings.models[1].size" is not a whole number and not null: run it again'
    path.write_text("[]")
    with pytest.raises(InputError, match=r"run.json is not an object: run it again"):
        read_json(path, schema, remedy="run it again")
    path.write_text('{"settings": {"models": [{}]}}')
    with pytest.raises(InputError, match=r'"settings.models\[0\]" has no "size"'):
        read_json(path, schema)


def test_toml(tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\n[b]\r\nc = 'x'\r\n")
    assert read_toml(path, fields({"a": integer, "b": mapping(text)})) == {"a": 1, "b": {"c": "x"}}
    path.write_text("a = ")
    with pytest.raises(InputError, match=r"a.toml is not TOML \(invalid value.*\): correct it"):
        read_toml(path)
    path.write_bytes(b"a = '\xe4'")
    with pytest.raises(InputError, match="is not UTF-8"):
        read_toml(path)


def test_nobody_else_parses_json_or_toml():
    parsers = [f"{module}.{name}" for module in ("json", "tomllib") for name in ("load", "loads")]
    found = set()
    for path in sorted(Path(ttd.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in parsers:
                found.add(path.name)
    assert found == {"documents.py"}
