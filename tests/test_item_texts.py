from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fllm_export import BundleError, UsageError
from fllm_export.item_texts import ItemTexts, as_texts

TEXTS = ["a film, with a comma", "naïve café", 'a "quoted" title']


class Column:
    """What a pandas or polars Series has in common with a list: it is iterated, and has one dimension."""

    ndim = 1

    def __init__(self, values: list[str]) -> None:
        self._values = values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"item_id": [1, 2, 3], "text": TEXTS}), path)
    elif path.suffix == ".csv":
        rows = [f'{i},"{text.replace(chr(34), chr(34) * 2)}"' for i, text in enumerate(TEXTS)]
        path.write_text("item_id,text\n" + "\n".join(rows) + "\n")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    else:
        path.write_text("\n".join(TEXTS) + "\n\n")
    return path


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "txt"])
def test_every_kind_of_file_gives_the_same_texts(tmp_path: Path, ending: str) -> None:
    loaded = ItemTexts.load(write(tmp_path / f"items.{ending}"))
    assert loaded.texts == tuple(TEXTS)
    assert loaded.source == f"items.{ending}"
    assert len(loaded.sha256) == 64


def test_a_sample_is_without_repeats_and_the_same_every_time(tmp_path: Path) -> None:
    path = tmp_path / "items.txt"
    path.write_text("\n".join(f"item {i}" for i in range(1000)))
    texts = ItemTexts.load(path)
    sample = texts.sample(50)
    assert sample == texts.sample(50) != texts.sample(50, seed=1)
    assert len(set(sample)) == 50
    assert texts.sample(5000) == list(texts.texts)


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("items.xml", "", UsageError, r"ends in '\.xml'; expected one of \.parquet"),
        ("none.txt", None, UsageError, r"none\.txt is missing"),
        ("items.txt", "\n\n", BundleError, "holds no texts"),
        ("items.csv", "title\nx\n", BundleError, "has the columns 'title'; expected a column 'text'"),
        ("items.csv", "text\n \n", BundleError, "line 2: text 0 is ' '"),
        ("items.jsonl", '{"text": "a"}\nnope', BundleError, r"line 2 \(text 1\) is not JSON"),
        ("items.jsonl", '{"text": 5}', BundleError, "line 1: text 0 is 5"),
        ("items.jsonl", '{"title": "a"}', BundleError, "line 1 has the columns 'title'"),
        ("items.parquet", "PAR0", BundleError, "is not a Parquet file"),
    ],
)
def test_unfit_files_are_named(tmp_path: Path, name: str, content: str | None, kind: type, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(kind, match=message):
        ItemTexts.load(tmp_path / name)


class Frame:
    """A table of columns, as data frames are; iterated, it gives the columns' names."""

    ndim = 2

    def __iter__(self) -> Iterator[str]:
        return iter(["text"])


@pytest.mark.parametrize(
    "make", [list, tuple, iter, np.array, lambda t: np.array(t, object), lambda t: (text for text in t), Column]
)
def test_texts_in_memory_are_what_has_an_order(make: Callable[[list[str]], object]) -> None:
    texts = as_texts(make(TEXTS), "texts")
    assert texts == TEXTS
    assert {type(text) for text in texts} == {str}
    assert ItemTexts.of(make(TEXTS), "calibration") == ItemTexts.of(TEXTS, "calibration")


def test_arrow_columns_are_texts() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    assert as_texts(pyarrow.array(TEXTS), "texts") == as_texts(pyarrow.chunked_array([TEXTS]), "texts") == TEXTS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("a film", r"texts is a single text; expected a list of texts\. Put it in a list"),
        (b"a film", "texts is a single text"),
        ([], "texts is empty"),
        ({"a": 1}, "texts is a dict"),
        ({"a"}, "texts is a set"),
        (5, "texts is a int"),
        (None, "texts is a NoneType"),
        (np.array([["a"]]), "texts is a ndarray of 2 dimensions"),
        (Frame(), "texts is a Frame of 2 dimensions"),
        (["a", 5], "texts: text 1 is 5"),
        (["a", None], "texts: text 1 is None"),
        (np.array(["a", np.nan], object), "texts: text 1 is nan"),
        (["a", "b", "  "], "texts: text 2 is '  '"),
        (["a", b"b"], "texts: text 1 is b'b'"),
        (["a", "caf\udce9"], r"texts: text 1 holds U\+DCE9 at character 3"),
    ],
)
def test_what_is_no_list_of_texts_is_a_usage_error(values: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        as_texts(values, "texts")


def test_a_text_of_a_file_that_is_not_unicode_has_its_line_and_number(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"text": "a"}\n{"text": ""}\n')
    with pytest.raises(BundleError, match=r"items\.jsonl, line 2: text 1 is ''"):
        ItemTexts.load(tmp_path / "items.jsonl")
