"""Reading files that grow."""

from __future__ import annotations

from pathlib import Path

import pytest

from fllm_export.coldstart.new_items import ItemSource, NewItem, open_items
from fllm_export.errors import BudgetError, BundleError, UsageError

from .small_platform import as_lines, records, write_parquet


def read_all(source: ItemSource, step: int, begin: int = 0) -> tuple[list[NewItem], int]:
    found: list[NewItem] = []
    while items := (batch := source.read(begin, step, final=False)).items:
        found += items
        begin = batch.end
    return found, begin


@pytest.mark.parametrize("step", [1, 3, 100])
def test_both_formats_give_the_same_items(tmp_path: Path, step: int) -> None:
    items = records(11)
    (tmp_path / "a.jsonl").write_bytes(as_lines(items))
    write_parquet(tmp_path / "a.parquet", items, group=4)
    lines, _ = read_all(open_items(tmp_path / "a.jsonl", "vector"), step)
    rows, end = read_all(open_items(tmp_path / "a.parquet", "vector"), step)
    assert lines == rows
    assert end == 11
    assert [item.item_id for item in lines] == list(range(1000, 1011))
    assert lines[0].users == (0, 100)
    assert lines[1].users == ()


def test_a_line_without_an_end_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    whole = as_lines(records(3))
    source_end = 0
    seen: list[int] = []
    for size in range(1, len(whole) + 1):
        path.write_bytes(whole[:size])
        batch = open_items(path, "vector").read(source_end, 10, final=False)
        seen += [item.item_id for item in batch.items]
        source_end = batch.end
        assert len(seen) == whole[:size].count(b"\n")
    assert seen == [1000, 1001, 1002]
    path.write_bytes(whole[:-1])
    assert len(open_items(path, "vector").read(0, 10, final=True).items) == 3


def test_a_parquet_file_that_is_replaced_by_a_longer_one(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    items = records(9)
    write_parquet(path, items[:4])
    source = open_items(path, "vector")
    first, end = read_all(source, 3)
    write_parquet(path, items, group=2)
    others, _ = read_all(source, 3, end)
    assert [item.item_id for item in first + others] == list(range(1000, 1009))
    path.write_bytes(path.read_bytes()[:-10])
    assert source.read(9, 3, final=False).items == []
    with pytest.raises(BundleError, match="not a Parquet file"):
        source.read(9, 3, final=True)


def test_a_row_group_is_decoded_once_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import parquet

    decoded: list[int] = []
    read = parquet.ParquetFile.read_row_group

    def counted(file: parquet.ParquetFile, group: int, **options: list[str]) -> object:
        decoded.append(group)
        return read(file, group, **options)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", counted)
    path = tmp_path / "a.parquet"
    write_parquet(path, records(12), group=6)
    source = open_items(path, "vector")
    assert len(read_all(source, 2)[0]) == 12
    assert decoded == [0, 1]
    # As long as before, and with the same rows but for their vectors.
    others = records(12, seed=2)
    write_parquet(path, others, group=6)
    again, _ = read_all(source, 5)
    assert again == [NewItem.of(item, "vector") for item in others]
    assert decoded == [0, 1, 0, 1]


@pytest.mark.parametrize("bad", [0, 1, 4])
def test_text_of_a_parquet_file_that_is_not_utf8_ends_the_batch_before_it(tmp_path: Path, bad: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    texts = pa.array([b"\xff\xfe" if n == bad else b"a film" for n in range(5)], pa.binary())
    # Arrow takes the bytes as they are.
    column = pa.Array.from_buffers(pa.string(), 5, texts.buffers())
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"item_id": list(range(5)), "text": column}), path)
    source = open_items(path, "text")
    if bad:
        assert [item.item_id for item in source.read(0, 9, final=True).items] == list(range(bad))
    with pytest.raises(BundleError, match=f"row {bad}: it holds text that is not UTF-8"):
        source.read(bad, 9, final=False)


def damage_pages(path: Path) -> None:
    """Overwrite the pages of a Parquet file; its footer stays whole."""
    content = bytearray(path.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little") + 8
    content[4:-footer] = b"\xff" * (len(content) - footer - 4)
    path.write_bytes(content)


def test_a_parquet_file_with_damaged_pages_is_told_or_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, records(9))
    damage_pages(path)
    source = open_items(path, "vector")
    assert source.read(0, 3, final=False).items == []
    with pytest.raises(BundleError, match="or is damaged"):
        source.read(0, 3, final=True)


@pytest.mark.parametrize("method", ["read_row_group", "__init__"])
def test_a_limit_of_the_system_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    def refuses(*_: object, **__: object) -> None:
        raise pa.ArrowMemoryError("malloc of size 1 failed")

    write_parquet(tmp_path / "a.parquet", records(3))
    source = open_items(tmp_path / "a.parquet", "vector")
    monkeypatch.setattr(parquet.ParquetFile, method, refuses)
    with pytest.raises(BudgetError, match="memory"):
        source.read(0, 1, final=False)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "not JSON"),
        (b"[1]", "JSON list"),
        (b'{"item_id": 1}', "no `text`"),
        (b'{"text": "a"}', "no `item_id`"),
        (b'{"item_id": -1, "text": "a"}', "item_id is -1"),
        (b'{"item_id": true, "text": "a"}', "item_id is True"),
        (b'{"item_id": 1.0, "text": "a"}', "item_id is 1.0"),
        (b'{"item_id": 9223372036854775808, "text": "a"}', "item_id"),
        (b'{"item_id": 1, "text": " "}', "`text` is"),
        (b'{"item_id": 1, "text": null}', "`text` is None"),
        (b'{"item_id": 1, "text": "\\ud800"}', "not JSON"),
        (b'{"item_id": 1, "text": "a", "users": 3}', "`users` is 3"),
        (b'{"item_id": 1, "text": "a", "users": ["b"]}', "users is 'b'"),
        (b'{"item_id": 1, "item_id": 2, "text": "a"}', "not JSON"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_an_invalid_line_ends_the_batch_before_it_and_is_named(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "a.jsonl"
    good = b'{"item_id": 5, "text": "a film"}\n'
    path.write_bytes(good + line + b"\n" + good)
    source = open_items(path, "text")
    batch = source.read(0, 10, final=False)
    assert [item.item_id for item in batch.items] == [5]
    with pytest.raises(BundleError, match=words) as caught:
        source.read(batch.end, 10, final=False)
    assert f"byte {len(good)}" in str(caught.value)


@pytest.mark.parametrize("vector", ["[]", "null", "[1e39]", '["a"]', "[true]", "[NaN]", "3"])
def test_an_invalid_vector_is_named(tmp_path: Path, vector: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"item_id": 1, "vector": {vector}}}\n')
    with pytest.raises(BundleError, match="byte 0"):
        open_items(path, "vector").read(0, 1, final=False)


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_vector_of_another_dimension_ends_the_batch_before_it(tmp_path: Path, ending: str) -> None:
    items = [{"item_id": 7, "vector": [1.0, 2.0]}, {"item_id": 8, "vector": [1.0]}]
    path = tmp_path / f"a{ending}"
    if ending == ".jsonl":
        path.write_bytes(as_lines(items))
    else:
        write_parquet(path, items)
    source = open_items(path, "vector", 2)
    batch = source.read(0, 10, final=True)
    assert [item.item_id for item in batch.items] == [7]
    with pytest.raises(BundleError, match="has 1 numbers; expected 2"):
        source.read(batch.end, 10, final=True)


def test_a_line_without_bounds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fllm_export.coldstart.new_items._LINE_BYTES_MAX", 1000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b" " * 2000)
    with pytest.raises(BudgetError, match="byte 0"):
        open_items(path, "text").read(0, 1, final=False)


def test_a_line_without_bounds_ends_the_batch_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fllm_export.coldstart.new_items._LINE_BYTES_MAX", 1000)
    path = tmp_path / "a.jsonl"
    good = as_lines(records(2))
    path.write_bytes(good + b" " * 2000)
    source = open_items(path, "vector")
    batch = source.read(0, 10, final=False)
    assert [item.item_id for item in batch.items] == [1000, 1001]
    assert batch.end == len(good)
    with pytest.raises(BudgetError, match=f"byte {len(good)}"):
        source.read(batch.end, 10, final=False)


def test_the_hash_is_of_everything_that_counts() -> None:
    base = {"item_id": 1, "text": "a", "users": [2, 3]}
    same = {"users": [3, 2, 3], "text": "a", "item_id": 1, "title": "ignored"}
    assert NewItem.of(base, "text") == NewItem.of(same, "text")
    for change in ({"item_id": 2}, {"text": "b"}, {"users": [2]}):
        assert NewItem.of({**base, **change}, "text").sha256 != NewItem.of(base, "text").sha256


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(as_lines(records(3)))
    source = open_items(path, "vector")
    end = source.read(0, 3, final=True).end
    path.write_bytes(as_lines(records(2)))
    with pytest.raises(BundleError, match="read before"):
        source.read(end, 3, final=True)
    write_parquet(tmp_path / "a.parquet", records(2))
    with pytest.raises(BundleError, match="read before"):
        open_items(tmp_path / "a.parquet", "vector").read(3, 1, final=True)


def test_the_file_must_exist_and_have_a_known_ending(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing"):
        open_items(tmp_path / "a.jsonl", "text")
    (tmp_path / "a.csv").write_text("item_id,text\n")
    with pytest.raises(UsageError, match=r"\.csv"):
        open_items(tmp_path / "a.csv", "text")
