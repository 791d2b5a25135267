from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.errors import BundleError
from fllm_export.strict_json import MAX_DEPTH, MAX_FILE_BYTES, parse, read_object, read_versioned

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


@given(VALUES, st.booleans())
def test_it_reads_what_json_writes(value, ascii_only):
    try:
        text = json.dumps(value, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    assert parse(text) == value
    assert parse(text.decode()) == value
    assert parse(b"\xef\xbb\xbf" + text) == value


@given(st.text('[]{}"\\,:a1 ', max_size=60))
def test_a_text_is_json_for_it_where_it_is_json_for_python(text):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            parse(text)
    else:
        assert parse(text) == expected or '"' in text  # a name may stand twice


@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}")])
def test_the_depth_has_a_limit(left, right):
    assert parse(left * MAX_DEPTH + "1" + right * MAX_DEPTH)
    for deep in (left * (MAX_DEPTH + 1) + "1" + right * (MAX_DEPTH + 1), left * 100_000):
        with pytest.raises(ValueError, match="nested deeper than 64 levels"):
            parse(deep)


def test_brackets_in_strings_and_side_by_side_do_not_count():
    brackets = ["[" * 1000, '\\"[{' * 300, *([[]] * 1000)]
    assert parse(json.dumps(brackets)) == brackets


def test_a_string_without_an_end_costs_no_quadratic_time():
    began = time.process_time()
    for hostile in ('"\\' * 500_000 + "[" * 65, "[" * 65 + '"\\"' * 300_000, '["\\"' + '\\"' * 500_000):
        with pytest.raises(ValueError, match=r"."):
            parse(hostile)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'["\\ud800"]', "half of a surrogate pair"),
        (b'{"\\uDFFF": 1}', "half of a surrogate pair"),
        ('["\ud800"]', "half of a surrogate pair"),
        (b'["\xff"]', "utf-8"),
        ('["a"]'.encode("utf-16"), "utf-8"),
        (b"[" + b"1" * 5000 + b"]", "4300 digits"),
        (b"", "Expecting value"),
        (b'{"a": 1} x', "Extra data"),
    ],
)
def test_what_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse(text)


def test_a_whole_surrogate_pair_is_a_character():
    assert parse(b'["\\ud83d\\ude00", "\\\\ud800"]') == ["\U0001f600", "\\ud800"]


def test_files_that_are_no_object(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(BundleError, match=r"a\.json cannot be read \(No such file"):
        read_object(path)
    with pytest.raises(BundleError, match="Is a directory"):
        read_object(tmp_path)
    path.write_text("[1]")
    with pytest.raises(BundleError, match="holds a JSON list; expected a JSON object"):
        read_object(path)
    path.write_text('{"format_version": 3}')
    assert read_versioned(path, 3) == {"format_version": 3}
    with pytest.raises(BundleError, match="has format version 3; expected at most 2"):
        read_versioned(path, 2)
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(BundleError, match=f"has {MAX_FILE_BYTES + 1} bytes"):
        read_object(path)
