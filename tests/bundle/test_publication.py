from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export import Bundle, BundleError, Runtime, UsageError, UserTable, publish
from fllm_export.bundle import publication
from fllm_export.cli.main import main
from fllm_export.table.layout import TableLayout

DIM = 8


def table(path: Path, users: int, generation: int = 1) -> Path:
    UserTable.create(path, np.full((users, DIM), users, np.float32), generation=generation, quant="fp32")
    return path


def directory(tmp_path: Path, users: int) -> Path:
    return table(tmp_path / "place", users)


def link(tmp_path: Path, users: int) -> Path:
    (tmp_path / "place").symlink_to(table(tmp_path / "first", users))
    return tmp_path / "place"


@pytest.mark.parametrize("old", [directory, link])
def test_the_new_table_stands_where_readers_open_and_its_generation_counts_up(
    tmp_path: Path, old: Callable[[Path, int], Path]
) -> None:
    place = old(tmp_path, 3)
    reader = UserTable.open(place, engine="numpy")
    done = publish(table(tmp_path / "new", 5), place)
    assert (done.generation, done.link) == (2, old is link)
    assert reader.topk(np.ones(DIM), k=3).scores[0, 0] == 3 * DIM
    reader.reopen()
    answer = reader.topk(np.ones(DIM), k=5)
    assert (answer.generation, len(reader), answer.scores[0, 0]) == (2, 5, 5 * DIM)
    assert done.previous == (tmp_path / "first" if old is link else None)
    assert (tmp_path / "new").exists() is (old is link)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_new_place_becomes_a_link_that_moves_with_its_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    publish(table(tmp_path / "a" / "one", 3), tmp_path / "a" / "current")
    (tmp_path / "a").rename(tmp_path / "b")
    assert len(UserTable.open(tmp_path / "b" / "current", engine="numpy")) == 3


def test_a_generation_that_is_given_is_kept_when_it_is_higher(tmp_path: Path) -> None:
    place = directory(tmp_path, 3)
    assert publish(table(tmp_path / "new", 3, generation=np.int64(9)), place).generation == 9
    assert publish(table(tmp_path / "new", 3, generation=4), place, keep=True).generation == 10
    assert TableLayout.load(tmp_path / "new").generation == 9
    with pytest.raises(UsageError, match="generation is 0; expected an integer from 1 to"):
        table(tmp_path / "none", 3, generation=0)


def test_what_cannot_be_published_is_refused_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, new = directory(tmp_path, 3), table(tmp_path / "new", 5)
    (tmp_path / "other").mkdir()
    for source, target, message in (
        (tmp_path / "other", place, "is not a bundle or a user table"),
        (new, tmp_path / "other", "exists and is not a user table; expected a user table to replace"),
        (new, new, "already; expected two directories"),
    ):
        with pytest.raises(UsageError, match=message):
            publish(source, target)
    monkeypatch.setattr(publication, "exchange", lambda *_: False)
    with pytest.raises(UsageError, match=r"cannot be exchanged .* Make .* a symbolic link"):
        publish(new, place)
    assert len(UserTable.open(place, engine="numpy")) == 3
    assert len(UserTable.open(new, engine="numpy")) == 5


def test_what_readers_could_not_open_is_refused_before_anything_changes(tiny_bundle: Bundle, tmp_path: Path) -> None:
    place, new = directory(tmp_path, 3), table(tmp_path / "new", 5)
    shard = new / TableLayout.load(new).shards[0].name
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(BundleError, match="00000"):
        publish(new, place)
    UserTable.create(tmp_path / "wide", np.ones((4, DIM + 1), np.float32))
    with pytest.raises(UsageError, match=f"dimension {DIM + 1}; expected {DIM}, as the table at"):
        publish(tmp_path / "wide", place)
    assert UserTable.open(place, engine="numpy").generation == 1
    for name in ("old", "damaged"):
        shutil.copytree(tiny_bundle.path, tmp_path / name)
    (tmp_path / "damaged" / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        publish(tmp_path / "damaged", tmp_path / "old")
    Bundle.load(tmp_path / "old").verify()


def test_a_bundle_is_published_whole(tiny_bundle: Bundle, tmp_path: Path) -> None:
    for name in ("old", "new"):
        shutil.copytree(tiny_bundle.path, tmp_path / name)
    runtime = Runtime.open(tmp_path / "old")
    done = CliRunner().invoke(main, ["publish", str(tmp_path / "new"), str(tmp_path / "old"), "--json"])
    assert done.exit_code == 0, done.output
    assert '"generation": 2' in done.stdout
    Bundle.load(tmp_path / "old").verify()
    generations = [opened.topk(["jazz"], 3).generation for opened in (runtime, Runtime.open(tmp_path / "old"))]
    assert generations == [1, 2]
    with pytest.raises(UsageError, match="is not a bundle; expected a bundle to replace"):
        publish(tmp_path / "old", table(tmp_path / "table", 5))


def test_a_bundle_of_the_frozen_form_is_published_and_still_vouched_for(tmp_path: Path) -> None:
    for name in ("old", "new"):
        shutil.copytree(Path(__file__).parents[1] / "format" / "v1" / "int8", tmp_path / name)
    assert publish(tmp_path / "new", tmp_path / "old").generation == 2
    Bundle.load(tmp_path / "old").verify()
    shutil.rmtree(tmp_path / "old" / "users")
    table(tmp_path / "old" / "users", 300)
    with pytest.raises(BundleError, match="vouches for"):
        Bundle.load(tmp_path / "old").verify()


@pytest.mark.parametrize("engine", ["numpy", "native"])
@pytest.mark.parametrize("old", [directory, link])
def test_readers_that_open_while_tables_are_published_see_one_of_them(
    tmp_path: Path, old: Callable[[Path, int], Path], engine: str
) -> None:
    place, seen, failures = old(tmp_path, 3), set(), []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                opened = UserTable.open(place, engine=engine, threads=1)
                answer = opened.topk(np.ones(DIM), k=3)
            except Exception as error:  # whatever it is, the test shall show it
                failures.append(error)
                return
            seen.add(answer.generation)
            # Tables of an even generation have 5 users, others 3; each score tells which.
            if not answer.scores[0, 0] == DIM * len(opened) == DIM * (5 if answer.generation % 2 == 0 else 3):
                failures.append((answer.generation, len(opened), answer.scores))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(60):
        publish(table(tmp_path / f"new{number}", 5 if number % 2 == 0 else 3), place)
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(seen) > 1
    assert TableLayout.load(place).generation == 61
    assert place.is_symlink() is (old is link)
