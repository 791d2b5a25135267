"""The same table whole and in parts: bit-identical answers, and losses that are told."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import BudgetError, BundleError, TopK, UsageError, UserTable
from fllm_export.engines.registry import Source
from fllm_export.scale.part_host import OtherGeneration, PartRequest
from fllm_export.scale.sharded_engine import ShardedEngine, ShardedOptions
from fllm_export.table.layout import TableLayout
from fllm_export.table.living import LivingTable
from tests.linked import set_link

from .local_fleet import LocalFleet, NeverInTime

GENERATOR = np.random.default_rng(1)
ROWS = GENERATOR.integers(-3, 4, (2000, 64)).astype(np.float32)  # small integers: many ties
IDS = np.sort(GENERATOR.choice(1 << 40, 2000, replace=False))
Z = GENERATOR.integers(-2, 3, (4, 64)).astype(np.float32)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    UserTable.create(tmp_path / "t", ROWS, IDS, shard_bytes=1 << 15, sketch="yes")
    return tmp_path / "t"


def sharded(fleet: LocalFleet, **options: Any) -> UserTable:
    """The table as applications meet it, with its rows elsewhere."""
    engine = ShardedEngine(fleet.directory, fleet, ShardedOptions(**options))
    return UserTable(engine, Source(fleet.directory, None, 1, {}))


def assert_same(found: TopK, expected: TopK) -> None:
    for name in ("user_ids", "scores", "coverage", "complete", "exact", "log_probs_exact"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    # Float32 sums within a pass: their last digits depend on how rows share it, on one machine too.
    np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-6)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-4)
    assert found.generation == expected.generation


@pytest.mark.parametrize("engine", ["native", "numpy"])
@pytest.mark.parametrize("parts", [1, 3, 4, 12])
def test_parts_answer_as_the_whole_table(place: Path, engine: str, parts: int) -> None:
    whole, table = UserTable.open(place, engine=engine, threads=1), sharded(LocalFleet(place, parts, engine))
    assert len(table) == len(whole)
    deny = whole.filter(deny=whole.topk(Z, 20).user_ids.ravel())
    for k in (1, 100, 2000):
        assert_same(table.topk(Z, k), whole.topk(Z, k))
        assert_same(table.topk(Z, k, filter=deny), whole.topk(Z, k, filter=deny))
        assert_same(table.topk(Z, k, log_probs="none"), whole.topk(Z, k, log_probs="none"))
    for seed in (7, [1, 2, 3, 4]):
        assert_same(table.topk(Z, 50, mode="sample", seed=seed), whole.topk(Z, 50, mode="sample", seed=seed))


def test_parts_of_a_table_whose_link_is_a_power(place: Path) -> None:
    set_link(place, 2)
    whole, table = UserTable.open(place, engine="numpy"), sharded(LocalFleet(place, 4))
    assert table.link == whole.link
    assert_same(table.topk(Z, 100), whole.topk(Z, 100))
    assert_same(table.topk(Z, 50, mode="sample", seed=7), whole.topk(Z, 50, mode="sample", seed=7))
    estimated, exact = table.topk(Z, 100, log_probs="estimate"), whole.topk(Z, 100)
    assert (np.abs(estimated.logsumexp - exact.logsumexp) <= estimated.log_prob_error).all()


def test_deleted_and_appended_users_and_parts_without_any(place: Path) -> None:
    writer = LivingTable(place, shard_bytes=1 << 15)
    writer.delete(IDS[:600])  # all rows of the first parts
    writer.append([(ROWS[:90], np.arange(90), None)])
    whole, table = UserTable.open(place, threads=1), sharded(LocalFleet(place, 8))
    assert_same(table.topk(Z, 1490), whole.topk(Z, 1490))
    assert table.generation == 3


@pytest.mark.parametrize("retries", [0, 1])
def test_a_lost_part_is_told_or_failed_over(place: Path, retries: int) -> None:
    whole = UserTable.open(place, threads=1)
    fleet = LocalFleet(place, 4, fails=lambda part, number: part == 2 and number == 0)
    answer = sharded(fleet, retries=retries).topk(Z, 30)
    if retries:
        assert_same(answer, whole.topk(Z, 30))
        assert [part for part, _ in fleet.asked] == [0, 1, 2, 3, 2]
        return
    assert not answer.complete.any()
    assert not answer.exact.any()
    assert not answer.log_probs_exact.any()
    lost = np.concatenate([ids for ids, _ in UserTable.open(place, part=(2, 4)).decoded()])
    np.testing.assert_allclose(answer.coverage, 1 - len(lost) / 2000)
    others = whole.filter(deny=lost)
    np.testing.assert_array_equal(answer.user_ids, whole.topk(Z, 30, filter=others).user_ids)


def test_losses_can_be_refused_and_nothing_is_no_answer(place: Path) -> None:
    gone = LocalFleet(place, 4, fails=lambda part, number: part == 1)
    with pytest.raises(BudgetError, match="1 of 4 parts"):
        sharded(gone, on_loss="refuse").topk(Z, 5)
    with pytest.raises(BudgetError, match="4 of 4 parts"):
        sharded(LocalFleet(place, 4, fails=lambda part, number: True)).topk(Z, 5)


def test_the_deadline_travels_and_ends_the_waiting(place: Path) -> None:
    fleet = LocalFleet(place, 4)
    ask = fleet.ask
    fleet.ask = lambda part, asked: NeverInTime() if part == 0 else ask(part, asked)  # type: ignore[method-assign]
    began = time.monotonic()
    answer = sharded(fleet, retries=3).topk(Z, 5, budget_ms=400)
    assert time.monotonic() - began < 20
    assert not answer.complete.any()
    budgets = [asked.budget_s for _, asked in fleet.asked]
    assert all(budget is not None and budget <= 0.4 for budget in budgets)
    assert all(asked.request.deadline is None for _, asked in fleet.asked)


def test_all_parts_of_an_answer_are_of_one_generation(place: Path) -> None:
    fleet = LocalFleet(place, 4)
    table = sharded(fleet)
    before = table.topk(Z, 5)
    LivingTable(place, shard_bytes=1 << 15).delete(before.user_ids[0])
    np.testing.assert_array_equal(table.topk(Z, 5).user_ids, before.user_ids)  # hosts keep what they have open
    fleet.hosts[3] = LocalFleet(place, 4).hosts[3]  # a replica that was started again has the new one alone
    after = table.topk(Z, 5)
    assert after.generation == 2
    assert not np.isin(after.user_ids, before.user_ids[0]).any()
    assert_same(after, UserTable.open(place, threads=1).topk(Z, 5))


def test_a_machine_that_stays_behind_is_no_part_of_an_answer(place: Path) -> None:
    fleet = LocalFleet(place, 4)
    table = sharded(fleet)
    ask = fleet.ask

    class Behind:
        def result(self, *, timeout_s: float | None) -> OtherGeneration:
            return OtherGeneration(9)

    fleet.ask = lambda part, asked: Behind() if part == 0 else ask(part, asked)  # type: ignore[method-assign]
    with pytest.raises(BudgetError, match="generation 9"):
        table.topk(Z, 5)


def test_errors_of_a_part_are_those_of_the_call(place: Path) -> None:
    table = sharded(LocalFleet(place, 2))
    with pytest.raises(UsageError, match="k is 2001"):
        table.topk(Z, 2001)
    with pytest.raises(BundleError, match="score"):
        table.topk(np.full((1, 64), 3e38, np.float32), 5)
    for path in place.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(BundleError):
        sharded(LocalFleet(place, 2)).topk(Z, 5)


def test_a_host_keeps_two_generations(place: Path) -> None:
    host = LocalFleet(place, 2).hosts[0]
    whole = UserTable.open(place, engine="numpy")
    asked = PartRequest(Z, whole.request(4, 5, None, "topk", 0, 0.0), None, 1)
    assert host.answer(asked).generation == 1  # type: ignore[union-attr]
    for generation in (2, 3):
        LivingTable(place, shard_bytes=1 << 15).delete(IDS[generation : generation + 1])
        assert host.answer(replace(asked, generation=generation)).generation == generation  # type: ignore[union-attr]
    assert host.answer(replace(asked, generation=2)).generation == 2  # type: ignore[union-attr]
    assert host.answer(asked) == OtherGeneration(3)


def test_a_host_reloads_what_is_at_the_path_and_keeps_what_it_has(place: Path) -> None:
    host = LocalFleet(place, 2).hosts[0]
    whole = UserTable.open(place, engine="numpy")
    asked = PartRequest(Z, whole.request(4, 5, None, "topk", 0, 0.0), None, 1)
    assert host.reload() == 1
    LivingTable(place, shard_bytes=1 << 15).delete(IDS[:1])
    assert [host.reload(), host.reload()] == [2, 2]
    shard = place / TableLayout.load(place).shards[0].name
    LivingTable(place, shard_bytes=1 << 15).delete(IDS[1:2])
    shard.rename(place / "elsewhere")
    with pytest.raises(BundleError, match=shard.name):
        host.reload()
    for generation in (1, 2):
        found = host.answer(replace(asked, generation=generation))
        assert found.generation == generation  # type: ignore[union-attr]
