"""Journal and stream: every record has its effect once, wherever a run stops."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import UserTable
from fllm_export.coldstart import Onboarder, OnboardOptions, Vectors, read_onboarded
from fllm_export.coldstart.item_index import open_index
from fllm_export.coldstart.item_stream import MARK_ENDING, Counts, IndexFile, ItemStream, StreamEnd
from fllm_export.coldstart.new_items import Batch, Content, open_items
from fllm_export.coldstart.onboard_journal import OnboardJournal
from fllm_export.errors import BudgetError, BundleError, UsageError

from .small_platform import as_lines, make_platform, records, rows_of, write_parquet

CONDITIONS = {"recommender": "r", "k": 5}
WHOLE = StreamEnd()


@pytest.fixture(scope="module")
def onboarder(tmp_path_factory: pytest.TempPathFactory) -> Onboarder:
    folder = tmp_path_factory.mktemp("platform")
    make_platform(folder)
    vectors = Vectors.load(folder / "recommender.safetensors")
    return Onboarder(UserTable.open(folder / "users", threads=1), vectors, OnboardOptions(k=5))


def stream(
    onboarder: Onboarder,
    path: Path,
    out: Path,
    batch: int = 8,
    end: StreamEnd = WHOLE,
    index: Path | None = None,
    recommender: str = "r",
) -> Counts:
    with OnboardJournal(out, {**CONDITIONS, "recommender": recommender}) as journal:
        known, into = onboarder._recommender, None
        if index is not None:
            into = IndexFile(open_index(index, known.item_ids, known.items), index, out, recommender)
        return ItemStream(onboarder, open_items(path, "vector"), journal, into, batch).run(end)


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_a_file_gives_each_item_once_in_any_batches(
    onboarder: Onboarder, tmp_path: Path, ending: str, batch: int
) -> None:
    items = records(40)
    path = tmp_path / f"items{ending}"
    if ending == ".jsonl":
        path.write_bytes(as_lines(items))
    else:
        write_parquet(path, items, group=16)
    counts = stream(onboarder, path, tmp_path / "out", batch)
    assert (counts.read, counts.onboarded, counts.batches) == (40, 40, -(-40 // batch))
    again = stream(onboarder, path, tmp_path / "out", batch)
    assert (again.read, again.onboarded, again.restarted) == (0, 0, False)
    rows = rows_of(tmp_path / "out")
    expected = onboarder.onboard(
        [item["vector"] for item in items],
        [item["item_id"] for item in items],
        [item.get("users", []) for item in items],
    )
    ids, vectors = read_onboarded(tmp_path / "out")
    np.testing.assert_array_equal(ids, expected.item_ids)
    np.testing.assert_array_equal(vectors, expected.vectors)
    assert rows["item_id"].to_pylist() == ids.tolist()
    assert rows["real_users"].to_pylist() == expected.real_users.tolist()
    assert rows["user_ids"].to_pylist() == expected.user_ids.tolist()
    assert set(rows["revision"].to_pylist()) == {1}


def test_an_index_takes_the_items_of_one_recommender(onboarder: Onboarder, tmp_path: Path) -> None:
    path, index = tmp_path / "items.jsonl", tmp_path / "index.safetensors"
    path.write_bytes(as_lines(records(3)))
    stream(onboarder, path, tmp_path / "out", index=index)
    before = index.read_bytes()
    with pytest.raises(
        UsageError, match=r"index.safetensors holds vectors of another recommender.*Choose another --index"
    ):
        stream(onboarder, path, tmp_path / "other", index=index, recommender="s")
    assert index.read_bytes() == before
    index.unlink()  # made again, of the new recommender
    stream(onboarder, path, tmp_path / "other", index=index, recommender="s")
    index.with_name(
        index.name + MARK_ENDING
    ).unlink()  # an index that something else made belongs to who pushes into it
    path.write_bytes(as_lines(records(5)))
    stream(onboarder, path, tmp_path / "out", index=index)
    assert (
        len(open_index(index, [0], np.zeros((1, onboarder._recommender.dim)))) == len(onboarder._recommender.items) + 5
    )
    with pytest.raises(UsageError, match="another recommender"):
        stream(onboarder, path, tmp_path / "other", index=index, recommender="s")


def test_what_is_known_is_told_by_its_content(onboarder: Onboarder, tmp_path: Path) -> None:
    first, second = records(2)
    changed = {**first, "users": [5, 6, 7]}
    path = tmp_path / "items.jsonl"
    # Repeats, a change, and a change back.
    path.write_bytes(as_lines([first, second, first, changed, second, changed, first]))
    for batch, out in ((1, tmp_path / "one"), (7, tmp_path / "all")):
        counts = stream(onboarder, path, out, batch)
        assert (counts.read, counts.onboarded, counts.unchanged) == (7, 4, 3)
        rows = rows_of(out)
        assert rows["item_id"].to_pylist() == [1000, 1001, 1000, 1000]
        assert rows["revision"].to_pylist() == [1, 1, 2, 3]
    assert rows_of(tmp_path / "one").equals(rows_of(tmp_path / "all"))
    ids, vectors = read_onboarded(tmp_path / "all")
    assert ids.tolist() == [1001, 1000]
    np.testing.assert_array_equal(vectors[1], np.array(rows_of(tmp_path / "all")["vector"][0].as_py(), np.float32))


def test_a_file_that_grows_is_followed(onboarder: Onboarder, tmp_path: Path) -> None:
    items = records(30)
    path, out = tmp_path / "items.jsonl", tmp_path / "out"
    whole = as_lines(items)
    for size in (100, 1000, 1001, 2500, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:size])
        counts = stream(onboarder, path, out, 4, StreamEnd(follow=True, idle_seconds=0.0))
        assert not counts.restarted
    assert rows_of(out)["item_id"].to_pylist() == [item["item_id"] for item in items]


def test_a_replaced_file_is_read_again_and_nothing_is_done_twice(onboarder: Onboarder, tmp_path: Path) -> None:
    items = records(20)
    path, out = tmp_path / "items.jsonl", tmp_path / "out"
    path.write_bytes(as_lines(items[:12]))
    stream(onboarder, path, out)
    path.write_bytes(as_lines(items[::-1]))
    counts = stream(onboarder, path, out)
    assert counts.restarted
    assert (counts.read, counts.onboarded) == (20, 8)
    assert sorted(rows_of(out)["item_id"].to_pylist()) == list(range(1000, 1020))


class Rewritten:
    """A Parquet file that another process is writing again whenever a batch of it has been read."""

    unit = "rows"

    def __init__(self, path: Path, kind: Content) -> None:
        self._source, self._path, self._whole = open_items(path, kind), path, path.read_bytes()

    def read(self, begin: int, most: int, *, final: bool) -> Batch:
        batch = self._source.read(begin, most, final=final)
        self._path.write_bytes(self._whole[:-10] if batch.items else self._whole)
        return batch


def test_a_file_that_is_written_again_while_a_batch_is_committed_is_waited_for(
    onboarder: Onboarder, tmp_path: Path
) -> None:
    path, out = tmp_path / "items.parquet", tmp_path / "out"
    write_parquet(path, records(6))
    end = StreamEnd(follow=True, max_items=4)
    with OnboardJournal(out, CONDITIONS) as journal:
        assert ItemStream(onboarder, Rewritten(path, "vector"), journal, None, 2).run(end).read == 4
    write_parquet(path, records(6))
    with OnboardJournal(out, CONDITIONS) as journal:
        assert journal.position_in(Rewritten(path, "vector")) == 4


def test_a_damaged_file_that_is_waited_for_is_told_once_and_when_it_is_read_again(
    onboarder: Onboarder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, remarks, pauses = tmp_path / "items.parquet", [], []
    write_parquet(path, records(3))
    whole = path.read_bytes()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        path.write_bytes(whole if len(pauses) == 3 else whole[: -len(pauses)])

    path.write_bytes(whole[:-10])
    monkeypatch.setattr("fllm_export.coldstart.item_stream.time.sleep", pause)
    with OnboardJournal(tmp_path / "out", CONDITIONS) as journal:
        source = open_items(path, "vector")
        counts = ItemStream(onboarder, source, journal).run(StreamEnd(follow=True, max_items=3), tell=remarks.append)
    assert (counts.read, len(pauses)) == (3, 3)
    assert [remark.split(" (")[0] for remark in remarks] == [
        f"waiting for a whole file: {path} is not a Parquet file, or is damaged",
        "the file is read again",
    ]


def test_a_replaced_file_with_a_line_that_is_too_long_is_read_from_its_beginning(
    onboarder: Onboarder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "items.jsonl", tmp_path / "out"
    path.write_bytes(as_lines(records(6)))
    stream(onboarder, path, out, 2)
    path.write_bytes(as_lines(records(2)) + b" " * 50_000 + b"\n")
    monkeypatch.setattr("fllm_export.coldstart.new_items._LINE_BYTES_MAX", 20_000)
    with OnboardJournal(out, CONDITIONS) as journal:
        assert journal.position_in(open_items(path, "vector")) == 0
    with pytest.raises(BudgetError, match=r"items.jsonl, line 3 \(at byte \d+\) has more than 20000 bytes"):
        stream(onboarder, path, out)


def test_the_number_of_records_is_bounded(onboarder: Onboarder, tmp_path: Path) -> None:
    path, out = tmp_path / "items.jsonl", tmp_path / "out"
    path.write_bytes(as_lines(records(20)))
    assert stream(onboarder, path, out, 8, StreamEnd(max_items=11)).read == 11
    assert stream(onboarder, path, out, 8, StreamEnd(follow=True, max_items=9)).read == 9


def test_an_invalid_record_stops_the_stream_after_what_stands_before_it(onboarder: Onboarder, tmp_path: Path) -> None:
    path, out = tmp_path / "items.jsonl", tmp_path / "out"
    lines = as_lines(records(10))
    path.write_bytes(lines + b"{}\n" + as_lines(records(12)[10:]))
    with pytest.raises(BundleError, match=rf"items.jsonl, line 11 \(at byte {len(lines)}\): the record has no"):
        stream(onboarder, path, out, 4)
    assert len(rows_of(out)) == 10
    path.write_bytes(lines + as_lines(records(12)[10:]))
    assert stream(onboarder, path, out, 4).onboarded == 2


def crashed(out: Path, copy: Path, lines: int, cut: int, parts: int) -> None:
    """Leave what a crash may leave: some lines of the journal, a part of the next one, and the parts so far."""
    shutil.copytree(out, copy)
    journal = (out / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "journal.jsonl").write_bytes(b"".join(journal[:lines]) + journal[lines][:cut])
    for part in sorted((copy / "parts").glob("*.parquet"))[parts:]:
        part.unlink()
    (copy / "parts" / ".00000004.parquet.abc").write_bytes(b"half")


@pytest.mark.parametrize("lines", [0, 1, 3])
@pytest.mark.parametrize("cut", [0, 1, 60])
@pytest.mark.parametrize("published", [0, 1])
def test_every_state_that_a_crash_leaves_is_continued(
    onboarder: Onboarder, tmp_path: Path, lines: int, cut: int, published: int
) -> None:
    path, out, copy = tmp_path / "items.jsonl", tmp_path / "out", tmp_path / "copy"
    path.write_bytes(as_lines(records(40)))
    stream(onboarder, path, out)
    # The line of a part is written after the part; a crash falls before the part, or between the two.
    crashed(out, copy, lines, cut, lines + published)
    counts = stream(onboarder, path, copy, 11)
    assert counts.read == 40 - 8 * (lines + published)
    assert rows_of(copy).equals(rows_of(out))
    assert [line["batch"] for line in map(json.loads, (copy / "journal.jsonl").read_text().splitlines())] == list(
        range(lines + published + counts.batches)
    )
    assert not list((copy / "parts").glob(".*"))


def test_the_index_holds_what_was_onboarded_even_after_a_crash(onboarder: Onboarder, tmp_path: Path) -> None:
    path, out, index = tmp_path / "items.jsonl", tmp_path / "out", tmp_path / "items.safetensors"
    path.write_bytes(as_lines(records(20)))
    stream(onboarder, path, out, end=StreamEnd(max_items=8))  # without an index: as if it had been lost
    stream(onboarder, path, out, index=index)
    known = onboarder._recommender
    found = open_index(index, known.item_ids, known.items)
    assert len(found) == 100
    ids, vectors = read_onboarded(out)
    users = known.users[:5]
    best, scores = found.search(users, 100)
    own = np.concatenate([known.items, vectors]) @ users.T
    place = {item: at for at, item in enumerate([*known.item_ids.tolist(), *ids.tolist()])}
    for user in range(5):
        expected = own[[place[item] for item in best[user].tolist()], user]
        # Sums that nearly cancel out keep the rounding of their terms, which are as large as the largest score.
        np.testing.assert_allclose(scores[user], expected, rtol=1e-5, atol=1e-6 * expected.max())


def test_other_conditions_need_another_directory(onboarder: Onboarder, tmp_path: Path) -> None:
    with OnboardJournal(tmp_path / "out", CONDITIONS), pytest.raises(UsageError, match="another onboarding"):
        OnboardJournal(tmp_path / "out", CONDITIONS).__enter__()
    with pytest.raises(UsageError, match="another k, method"):
        OnboardJournal(tmp_path / "out", {**CONDITIONS, "k": 6, "method": "bpr"}).__enter__()


def damage(out: Path, kind: str) -> None:
    part = sorted((out / "parts").glob("*.parquet"))[1]
    journal = out / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    entry: dict[str, Any] = json.loads(lines[1])
    if kind == "part is missing":
        part.unlink()
    elif kind == "part is shorter":
        part.write_bytes(part.read_bytes()[:-1])
    elif kind == "part has another byte":
        content = bytearray(part.read_bytes())
        content[len(content) // 3] ^= 0xFF
        part.write_bytes(content)
    elif kind == "line is missing":
        journal.write_bytes(lines[0] + lines[2])
    elif kind == "line is no JSON":
        journal.write_bytes(lines[0] + b"{]\n" + lines[2])
    elif kind == "part leads elsewhere":
        entry["part"]["name"] = "../../elsewhere.parquet"
        journal.write_bytes(lines[0] + json.dumps(entry).encode() + b"\n" + lines[2])
    elif kind == "position is no number":
        entry["end"] = "9"
        journal.write_bytes(lines[0] + json.dumps(entry).encode() + b"\n" + lines[2])


@pytest.mark.parametrize(
    "kind",
    [
        "part is missing",
        "part is shorter",
        "part has another byte",
        "line is missing",
        "line is no JSON",
        "part leads elsewhere",
        "position is no number",
    ],
)
def test_damage_is_found(onboarder: Onboarder, tmp_path: Path, kind: str) -> None:
    path, out = tmp_path / "items.jsonl", tmp_path / "out"
    path.write_bytes(as_lines(records(24)))
    stream(onboarder, path, out)
    damage(out, kind)
    with pytest.raises(BundleError):
        stream(onboarder, path, out)
