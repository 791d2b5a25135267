"""Readers that reopen and ask while a publisher puts one generation after another in its place."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fllm_export import Bundle, BundleError, Runtime, TopK, UsageError, UserTable
from fllm_export.manifest import Manifest
from fllm_export.table.layout import TableLayout

DIM = 24
IDS_PER_GENERATION = 1_000_000
SIZES = (500, 2_000, 700, 3_100, 40, 1_500)
K = 40


def write_generation(folder: Path, generation: int, dim: int = DIM) -> Path:
    """A table whose ids say of which generation it is, and whose size says so too."""
    rows = np.random.default_rng(generation).standard_normal((SIZES[generation % len(SIZES)], dim), dtype=np.float32)
    ids = generation * IDS_PER_GENERATION + np.arange(len(rows))
    directory = folder / f"generation-{generation}"
    # Small shards, so that opening takes several files.
    UserTable.create(directory, rows, ids=ids, shard_bytes=1 << 15, sketch="no")
    replace(TableLayout.load(directory), generation=generation).save(directory)
    return directory


def point(link: Path, target: Path) -> None:
    """Let a symbolic link lead elsewhere, in one step."""
    fresh = link.with_name(link.name + ".new")
    fresh.symlink_to(target)
    fresh.replace(link)


def disagreement(answer: TopK) -> str | None:
    """Say what in an answer is not of the generation that it names."""
    generation = answer.generation
    if not np.array_equal(answer.user_ids // IDS_PER_GENERATION, np.full_like(answer.user_ids, generation)):
        return f"generation {generation} with users {answer.user_ids}"
    if int(answer.user_ids.max()) % IDS_PER_GENERATION >= SIZES[generation % len(SIZES)]:
        return f"generation {generation} with a user that it does not have"
    if not (answer.coverage == 1.0).all() or not answer.complete.all():
        return f"generation {generation} with coverage {answer.coverage}"
    return None


def race(table: UserTable, publish: Callable[[int], None], seconds: float) -> tuple[int, int, list[str]]:
    """Publish, reopen and ask for some time; return how many answers and generations there were, and what was wrong."""
    wrong: list[str] = []
    seen: set[int] = set()
    answers = 0
    stop = threading.Event()
    z = np.random.default_rng(0).standard_normal((2, DIM)).astype(np.float32)

    def work(turn: int) -> None:
        nonlocal answers
        try:
            while not stop.is_set():
                if turn % 2:
                    table.reopen()
                answer = table.topk(z, K, log_probs="none" if turn % 3 else None)
                said = disagreement(answer)
                if said is not None:
                    wrong.append(said)
                seen.add(answer.generation)
                answers += 1
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(6)]
    for thread in threads:
        thread.start()
    end, generation = time.monotonic() + seconds, 1
    while time.monotonic() < end and not wrong:
        generation += 1
        publish(generation)
    stop.set()
    for thread in threads:
        thread.join()
    return answers, len(seen), wrong


@pytest.mark.parametrize(
    "seconds", [1.5, pytest.param(20, marks=pytest.mark.slow, id="20 s, the time that the fault needed")]
)
@pytest.mark.parametrize("engine", ["native", "numpy"])
def test_no_answer_is_of_two_generations(tmp_path: Path, engine: str, seconds: float) -> None:
    link = tmp_path / "users"
    made = [write_generation(tmp_path, generation) for generation in range(1, 13)]
    point(link, made[0])
    table = UserTable.open(link, engine=engine, threads=1)

    def publish(generation: int) -> None:
        # Each is a new directory, as a publisher's is: the files of one are linked under a new name.
        fresh = tmp_path / f"published-{generation}"
        fresh.mkdir()
        for file in made[generation % len(made)].iterdir():
            os.link(file, fresh / file.name)
        point(link, fresh)
        time.sleep(0.002)

    answers, generations, wrong = race(table, publish, seconds)
    assert not wrong, wrong[0]
    assert answers > 20
    assert generations > 3


def test_a_table_of_other_rows_takes_the_place_but_not_one_of_another_dimension(tmp_path: Path) -> None:
    link = tmp_path / "users"
    first, second = (write_generation(tmp_path, generation) for generation in (1, 2))
    other = write_generation(tmp_path, 3, dim=DIM + 8)
    for engine in ("native", "numpy"):
        point(link, first)
        table = UserTable.open(link, engine=engine)
        seen = table.filter(deny=np.arange(2 * IDS_PER_GENERATION, 2 * IDS_PER_GENERATION + 100))
        assert table.topk(np.ones(DIM), 5, filter=seen).generation == 1
        point(link, second)
        table.reopen()
        answer = table.topk(np.ones(DIM), K, filter=seen)
        assert disagreement(answer) is None
        assert len(table) == SIZES[2]
        assert table.generation == answer.generation == 2
        assert int(answer.user_ids.min()) >= 2 * IDS_PER_GENERATION + 100
        point(link, other)
        with pytest.raises(UsageError, match=f"dimension {DIM + 8}"):
            table.reopen()
        assert disagreement(table.topk(np.ones(DIM), 5)) is None
        point(link, tmp_path)
        with pytest.raises(BundleError):
            table.reopen()
        assert table.topk(np.ones(DIM), 5).generation == 2


def test_a_runtime_goes_on_with_the_bundle_that_took_the_place(tiny_bundle: Bundle, tmp_path: Path) -> None:
    link, texts = tmp_path / "bundle", ["a film about jazz", "graphs"]
    point(link, tiny_bundle.path)
    runtime = Runtime.open(link, threads=1)
    before, encoder = runtime.topk(texts, 5), runtime._opened.encoder
    other = tmp_path / "other"
    other.mkdir()
    for file in tiny_bundle.path.rglob("*"):
        if file.is_file():
            copy = other / file.relative_to(tiny_bundle.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    replace(TableLayout.load(other / "users"), generation=2).save(other / "users")
    replace(Manifest.load(other), provenance={"made": "elsewhere"}).save(other)
    point(link, other)
    runtime.reopen()
    after = runtime.topk(texts, 5)
    assert (before.generation, after.generation) == (1, 2)
    assert runtime._opened.encoder is encoder, "the same encoder is not loaded again"
    np.testing.assert_array_equal(after.user_ids, before.user_ids)
    # A table that is replaced inside the same bundle.
    replace(TableLayout.load(other / "users"), generation=3).save(other / "users")
    runtime.reopen()
    assert runtime.topk(texts, 5).generation == 3
    (other / "manifest.json").unlink()
    with pytest.raises(BundleError):
        runtime.reopen()
    assert runtime.topk(texts, 5).generation == 3
