from __future__ import annotations

import json
from pathlib import Path

import pytest

from fllm_export import BundleError, UsageError
from fllm_export.item_texts import ItemTexts

TEXTS = ["a film, with a comma", "naïve café", 'a "quoted" title']


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
        ("items.csv", "title\nx\n", BundleError, "has the columns title; expected a column `text`"),
        ("items.csv", "text\n \n", BundleError, "text 0 is ' '"),
        ("items.jsonl", '{"text": "a"}\nnope', BundleError, "line 2 is not JSON"),
        ("items.jsonl", '{"text": 5}', BundleError, "text 0 is 5"),
        ("items.jsonl", '{"title": "a"}', BundleError, "has the columns title"),
        ("items.parquet", "PAR0", BundleError, "is not a Parquet file"),
    ],
)
def test_unfit_files_are_named(tmp_path: Path, name: str, content: str | None, kind: type, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(kind, match=message):
        ItemTexts.load(tmp_path / name)
