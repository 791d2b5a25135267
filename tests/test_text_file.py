from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fllm_export import text_file
from fllm_export.errors import BudgetError, BundleError, UsageError
from fllm_export.text_file import read_columns

# Characters that Python's str.splitlines ends a line at, and no format here does.
ODD = "a\u2028b\u2029c\x0bd\x0ce\x1cf\x85g"


def texts(path: Path) -> list[object]:
    return read_columns(path).objects("text")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "end", "end end"])
def test_line_ends_of_txt_and_csv(tmp_path: Path, end: str, last: str) -> None:
    tail = last.replace("end", end).replace(" ", "  ")
    (tmp_path / "a.txt").write_bytes((f"one{end}{ODD}" + tail).encode())
    assert texts(tmp_path / "a.txt") == ["one", ODD]
    tail = tail.replace(" ", "")
    (tmp_path / "a.csv").write_bytes((f"text,n{end}one,1{end}{ODD},2" + tail).encode())
    assert texts(tmp_path / "a.csv") == ["one", ODD]


def test_json_lines_end_at_lf_alone(tmp_path: Path) -> None:
    body = "\r\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in ("one", ODD)).encode()
    for ending in ("jsonl", "ndjson", "JSONL"):
        (tmp_path / f"a.{ending}").write_bytes(body + b"\n \n\n")
        assert texts(tmp_path / f"a.{ending}") == ["one", ODD]


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1).filter(str.strip)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@settings(max_examples=50)
@given(values=st.lists(CELLS, min_size=1, max_size=4))
@example(values=['a "quoted" title', "two\nlines", "tab\tand, comma", "x" * 200_000])
def test_tables_as_python_writes_them_come_back(folder: Path, values: list[str]) -> None:
    for ending, dialect in (("csv", "excel"), ("tsv", "excel-tab")):
        file = io.StringIO(newline="")
        csv.writer(file, dialect).writerows([["id", "text"], *enumerate(values)])
        (folder / f"a.{ending}").write_bytes(file.getvalue().encode())
        assert texts(folder / f"a.{ending}") == values
        assert read_columns(folder / f"a.{ending}", ["id"]).integers("id").tolist() == list(range(len(values)))


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "A.CSV", "a.Txt.GZ", "a.csv.gz", "a.tsv", "a.JSONL.gz"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_say_what_they_are(tmp_path: Path, name: str, encoding: str) -> None:
    body = '{"text": "naïve café"}' if "json" in name.lower() else "naïve café"
    raw = (f"text\n{body}\n" if ".csv" in name.lower() or ".tsv" in name else f"{body}\n").encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.lower().endswith(".gz") else raw)
    assert texts(tmp_path / name) == ["naïve café"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "one\nna\xefve".encode("latin-1"), r"line 2 is not UTF-8 \(byte 0xef\).*iconv"),
        ("a.csv", "text\none\nna\xefve".encode("latin-1"), r"line 3 is not UTF-8 \(byte 0xef\)"),
        ("a.txt", "one\ntwo".encode("utf-16-le"), "line 1 holds a zero byte, as UTF-16 does"),
        ("a.jsonl", '{"text": "é"}'.encode("utf-16-be"), "line 1"),
        ("a.txt", "one".encode("utf-16")[:-1], "is not UTF-16"),
        ("a.txt", b"one\n\xed\xa0\x80", "line 2 is not UTF-8"),
        ("a.txt", b"one\n\ntwo\n", "line 2 is blank.*Remove the blank line"),
        ("a.csv", b"text\none\n\n\ntwo\n", "line 3 is blank"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": "b"}\n', "line 2 is blank"),
        ("a.jsonl", b'{"text": "a"}\n["b"]', "line 2 holds a JSON list"),
        ("a.jsonl", b'{"text": "a"}\n{"title": "b"}', "line 2 has the columns 'title'; expected a column 'text'"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}', r"line 2 \(text 1\) is not JSON .*surrogate"),
        ("a.csv", b'text\none\n"two\n', r"line 3 is not CSV \(unexpected end of data\)"),
        ("a.csv", b'text\n"a" film\n', "line 2 is not CSV"),
        ("a.csv", b"id,text\n1,a\n2,a film, and more\n", "line 3 has 3 cells; expected 2"),
        ("a.csv", b'id,text\n1,"two\nlines"\n2\n', "line 4 has 1 cells; expected 2"),
        ("a.csv", b"id;text\n1;a\n", "has the columns 'id;text'; expected a column 'text'"),
        ("a.csv", b"title\n", "has the columns 'title'"),
        ("a.csv", b"text,text\na,b\n", "has the columns 'text', 'text'; expected a column 'text', once"),
        ("a.txt.gz", b"one\n", "is not a gzip file, or is cut off"),
        ("a.txt.gz", gzip.compress(b"one\n" * 99, mtime=0)[:-9], "is not a gzip file, or is cut off"),
        ("a.txt.gz", gzip.compress(b"one\n", mtime=0)[:-8] + b"12345678", "is not a gzip file, or is cut off"),
    ],
)
def test_damage_is_named_by_its_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=words):
        read_columns(tmp_path / name)


def test_paths_that_are_no_file_of_texts(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name, words in (
        ("folder.csv", "is a directory; expected a file"),
        ("none.csv", "is missing"),
        ("a.xml", r"ends in '\.xml'; expected one of \.parquet, \.txt, \.csv"),
        ("a.parquet.gz", r"ends in '\.parquet\.gz'"),
        ("a", "ends in ''"),
        ("a.gz", r"ends in '\.gz'"),
    ):
        with pytest.raises(UsageError, match=words):
            read_columns(tmp_path / name)


def test_a_small_file_that_expands_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "_EXPANDED_BYTES_MAX", 1000)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a" * 1001))
    with pytest.raises(BudgetError, match="expands to more than 1000 bytes"):
        read_columns(tmp_path / "a.txt.gz")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "id\n1\n1.0\n", r"line 3: `id` is '1\.0'; expected an integer"),
        ("a.csv", "id\n9999999999999999999\n", "`id` is '9999999999999999999'"),
        ("a.jsonl", '{"id": "1"}', "line 1: `id` is '1'"),
        ("a.jsonl", '{"id": true}', "`id` is True"),
        ("a.jsonl", '{"id": 1.0}', r"`id` is 1\.0"),
        ("a.jsonl", '{"id": null}', "`id` is None"),
    ],
)
def test_an_id_is_an_integer_and_never_made_one(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(BundleError, match=words):
        read_columns(tmp_path / name, ["id"]).integers("id")


def test_parquet_columns(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder = tmp_path / "text=hive"  # A folder's name must not become a column.
    folder.mkdir()
    path = folder / "a.PARQUET"
    encoded = pa.array(["a", ODD]).dictionary_encode()
    parquet.write_table(pa.table({"text": encoded, "id": pa.array([1, 2], pa.uint8())}), path)
    assert texts(path) == ["a", ODD]
    assert read_columns(path, ["id"]).integers("id").dtype == np.int64
    bad = pa.array([b"a", b"\xff"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"text": bad, "id": pa.array([1, 2**63], pa.uint64())}), path)
    with pytest.raises(BundleError, match="row 1: `text` is not UTF-8"):
        texts(path)
    with pytest.raises(BundleError, match="`id`"):
        read_columns(path, ["id"]).integers("id")
    with pytest.raises(BundleError, match="has the columns 'text', 'id'; expected a column 'title'"):
        read_columns(path, ["title"])
