from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import BundleError, UserTable
from fllm_export.engines.panel import SUMMED_ROWS
from fllm_export.server.batcher import Batcher, Client, Expired, Waiting
from fllm_export.server.served import Served

from .serving import DIM, vectors


class Passes:
    """A table that notes how many items each pass has, and may hold or break passes."""

    def __init__(self, table: UserTable) -> None:
        self.table = table
        self.items: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def answer(self, z: np.ndarray, search: Any) -> Any:
        self.items.append(len(z))
        self.entered.set()
        assert self.gate.wait(30)
        if (z[:, 0] > 1e30).any():
            raise BundleError("a score is beyond float32")
        return self.table.answer(z, search)


class Asking:
    """A batcher on such a table, and what its passes were begun for."""

    def __init__(self, table: UserTable, *, most: int = 8, wait_s: float = 0.0, threads: int = 1) -> None:
        self.table = table
        self.passes = Passes(table)
        self.served = Served(Path("x"), self.passes, None)  # type: ignore[arg-type]
        self.reasons: list[str] = []
        self.dropped = 0
        self.batcher = Batcher(most, wait_s, threads, self._observe)

    def _observe(self, reason: str, items: int, dropped: int) -> None:
        self.reasons.append(reason)
        self.dropped += dropped

    def ask(self, z: np.ndarray, k: int = 5, *, client: Client | None = None, **options: Any) -> Future:
        future: Future = Future()
        filter = options.pop("filter", None)
        seed, mode, budget = options.pop("seed", 0), options.pop("mode", "topk"), options.pop("budget_ms", None)
        began = time.monotonic()
        search = self.table.request(len(z), k, budget, mode, seed, began, filter=filter, **options)
        key = None if filter is None else filter.user_ids.tobytes()
        give_up = began + options.pop("give_up_s", 60)
        self.batcher.submit(Waiting(self.served, z, search, key, give_up, future.set_result, client or Client()))
        return future

    def hold(self) -> None:
        """Let a first pass begin and not end, so that what follows waits."""
        self.passes.gate.clear()
        self.first = self.ask(vectors(1, 99))
        assert self.passes.entered.wait(30)

    def go_on(self) -> None:
        self.passes.gate.set()


@pytest.fixture
def asking(table: UserTable) -> Any:
    made: list[Asking] = []

    def make(**options: Any) -> Asking:
        made.append(Asking(table, **options))
        return made[-1]

    yield make
    for one in made:
        one.go_on()
        one.batcher.close()


def assert_same(found: Any, wanted: Any) -> None:
    np.testing.assert_array_equal(found.user_ids, wanted.user_ids)
    np.testing.assert_array_equal(found.scores, wanted.scores)
    np.testing.assert_allclose(found.log_probs, wanted.log_probs, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.exact, wanted.exact)
    assert found.generation == wanted.generation


def test_waiting_requests_share_a_pass_and_get_their_own_answers(asking: Any, table: UserTable) -> None:
    one = asking(most=64)
    one.hold()
    parts = [vectors(1 + i % 3, i) for i in range(20)]
    futures = [one.ask(z) for z in parts]
    one.go_on()
    for z, future in zip(parts, futures, strict=True):
        assert_same(future.result(30), table.topk(z, 5))
    assert one.passes.items == [1, sum(map(len, parts))]
    assert one.reasons == ["waited", "waited"]


def test_samples_keep_their_seeds_in_a_shared_pass(asking: Any, table: UserTable) -> None:
    one = asking(most=64)
    one.hold()
    futures = [one.ask(vectors(2, i), mode="sample", seed=[i, i + 100]) for i in range(6)]
    one.go_on()
    for i, future in enumerate(futures):
        assert_same(future.result(30), table.topk(vectors(2, i), 5, mode="sample", seed=[i, i + 100]))
    assert one.passes.items == [1, 12]


def test_requests_that_differ_do_not_share_a_pass(asking: Any, table: UserTable) -> None:
    one = asking(most=64)
    one.hold()
    z = vectors(1)
    deny = [table.filter(deny=[3, 5]), table.filter(deny=[3, 5]), table.filter(deny=[7])]
    kinds: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"k": 5}, {}),
        ({"k": 7}, {}),
        ({"k": 5}, {"mode": "sample"}),
        ({"k": 5}, {"log_probs": "none"}),
        ({"k": 5}, {"budget_ms": 1e6}),
        *(({"k": 5}, {"filter": chosen}) for chosen in deny),
        ({"k": 5}, {}),
    ]
    futures = [one.ask(z, **of, **options) for of, options in kinds]
    one.go_on()
    for future, (of, options) in zip(futures, kinds, strict=True):
        assert_same(future.result(30), table.topk(z, **of, **options))
    # The two with the same filter, and the first and the last, share one.
    assert sorted(one.passes.items[1:]) == [1, 1, 1, 1, 1, 2, 2]


def test_statistical_bounds_have_passes_of_their_own(asking: Any) -> None:
    one = asking(most=64)
    one.hold()
    futures = [one.ask(vectors(1, i), exact=False) for i in range(3)]
    one.go_on()
    assert all(future.result(30).user_ids.shape == (1, 5) for future in futures)
    assert one.passes.items == [1] * 4
    assert one.reasons[1:] == ["alone"] * 3


def test_estimates_share_a_pass_and_are_those_of_a_request_alone(tmp_path: Path) -> None:
    """Log-probabilities bit for bit, on a table that is too large to be summed up, with a filter and without."""
    rows = np.random.default_rng(2).standard_normal((SUMMED_ROWS + 1000, DIM)).astype(np.float32)
    table = UserTable.create(tmp_path / "users", rows, cluster="yes", sketch="yes")
    deny = table.filter(deny=table.topk(vectors(1, 0), 3).user_ids[0])
    one = Asking(table, most=64)
    one.hold()
    asked = [(vectors(1 + i % 3, i), {"filter": deny} if i % 2 else {}) for i in range(12)]
    futures = [one.ask(z, log_probs="estimate", **options) for z, options in asked]
    one.go_on()
    for (z, options), future in zip(asked, futures, strict=True):
        found, alone = future.result(30), table.topk(z, 5, log_probs="estimate", **options)
        assert_same(found, alone)
        assert not found.log_probs_exact.any()
        np.testing.assert_array_equal(found.log_probs, alone.log_probs)
        np.testing.assert_allclose(found.log_prob_error, alone.log_prob_error, rtol=1e-6)
    assert sorted(one.passes.items) == [1, 12, 12]
    one.batcher.close()


def test_a_pass_has_no_more_items_than_it_may(asking: Any) -> None:
    one = asking(most=8)
    one.hold()
    futures = [one.ask(vectors(3, i)) for i in range(5)] + [one.ask(vectors(20, 7))]
    one.go_on()
    assert [len(future.result(30).user_ids) for future in futures] == [3] * 5 + [20]
    assert one.passes.items == [1, 6, 6, 3, 20]
    assert one.reasons == ["waited", "full", "full", "full", "full"]


def test_other_kinds_begin_beside_a_pass_but_later_requests_wait_for_its_end(asking: Any) -> None:
    one = asking(most=64, wait_s=0.2, threads=3)
    one.passes.gate.clear()
    kinds = [one.ask(vectors(1, i), k=5 + i % 2) for i in range(6)]
    until = time.monotonic() + 30
    while len(one.passes.items) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    later = [one.ask(vectors(1, i)) for i in range(4)]
    time.sleep(0.3)
    assert one.passes.items == [3, 3]
    one.go_on()
    assert all(future.result(30).complete.all() for future in kinds + later)
    assert one.passes.items == [3, 3, 4]


def test_what_comes_during_a_pass_that_began_alone_shares_the_next(asking: Any) -> None:
    one = asking(most=64, threads=3)
    one.hold()
    later = [one.ask(vectors(1, i)) for i in range(4)]
    time.sleep(0.3)
    assert one.passes.items == [1]
    one.go_on()
    assert all(future.result(30).complete.all() for future in later)
    assert one.passes.items == [1, 4]


def test_full_passes_beside_another_do_not_let_single_requests_begin(asking: Any) -> None:
    one = asking(most=8, threads=4)
    one.hold()
    held, one.passes.gate = one.passes.gate, threading.Event()
    one.passes.gate.set()
    assert one.ask(vectors(8, 1)).result(30).complete.all()
    time.sleep(0.1)  # its thread looks for more
    one.passes.gate = held
    futures = [one.ask(vectors(8, 2))]
    until = time.monotonic() + 30
    while len(one.passes.items) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    futures += [one.ask(vectors(1, i)) for i in range(3)]
    time.sleep(0.3)
    assert one.passes.items == [1, 8, 8]
    one.go_on()
    assert all(future.result(30).complete.all() for future in futures)
    assert one.passes.items == [1, 8, 8, 3]


def test_requests_that_are_never_merged_begin_beside_each_other(asking: Any) -> None:
    one = asking(threads=4)
    one.hold()
    futures = [one.ask(vectors(1, i), exact=False) for i in range(3)]
    held, one.passes.gate = one.passes.gate, threading.Event()
    held.set()  # the first pass ends, and the three wait for another gate
    until = time.monotonic() + 30
    while len(one.passes.items) < 4 and time.monotonic() < until:
        time.sleep(0.01)
    assert one.passes.items == [1] * 4
    one.go_on()
    assert all(future.result(30).complete.all() for future in futures)


def test_another_kind_begins_beside_when_its_own_wait_is_over(asking: Any) -> None:
    one = asking(most=64, wait_s=0.4, threads=2)
    one.passes.gate.clear()
    futures = [one.ask(vectors(1, 1))]
    time.sleep(0.2)
    futures.append(one.ask(vectors(1, 2), k=6))
    until = time.monotonic() + 10
    while len(one.passes.items) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert one.passes.items == [1, 1]
    one.go_on()
    assert all(future.result(30).complete.all() for future in futures)


def test_the_first_of_a_pass_waits_for_others_but_not_longer(asking: Any) -> None:
    one = asking(most=8, wait_s=0.5)
    began = time.monotonic()
    first = one.ask(vectors(1, 0))
    second = one.ask(vectors(1, 1))
    first.result(30), second.result(30)
    assert 0.4 < time.monotonic() - began < 5
    assert (one.passes.items, one.reasons) == ([2], ["waited"])


def test_one_bad_item_does_not_fail_its_neighbours(asking: Any, table: UserTable) -> None:
    one = asking(most=64)
    one.hold()
    bad = vectors(1)
    bad[0, 0] = 1e31
    good, wrong, other = one.ask(vectors(1, 1)), one.ask(bad), one.ask(vectors(1, 2))
    one.go_on()
    assert_same(good.result(30), table.topk(vectors(1, 1), 5))
    assert_same(other.result(30), table.topk(vectors(1, 2), 5))
    assert isinstance(wrong.result(30), BundleError)


def test_who_went_or_waited_too_long_is_left_out(asking: Any) -> None:
    one = asking(most=64)
    one.hold()
    gone = Client()
    left, kept = one.ask(vectors(1, 1), client=gone), one.ask(vectors(1, 2))
    gone.gone = True
    one.go_on()
    assert isinstance(left.result(30), Expired)
    assert kept.result(30).complete.all()
    assert (one.passes.items, one.dropped) == ([1, 1], 1)


def test_a_budget_of_another_request_does_not_cut_an_answer_short(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((200_000, DIM)).astype(np.float32)
    UserTable.create(tmp_path / "users", rows, quant="int8", cluster="no")
    large = UserTable.open(tmp_path / "users", threads=1, engine="numpy")
    one = Asking(large, most=64)
    one.hold()
    hurried, patient = one.ask(vectors(1, 1), budget_ms=0.01), one.ask(vectors(1, 2), budget_ms=60_000)
    time.sleep(0.02)
    one.go_on()
    cut, whole = hurried.result(30), patient.result(30)
    one.batcher.close()
    assert whole.complete.all()
    assert_same(whole, large.topk(vectors(1, 2), 5))
    assert not cut.complete.any()
    assert 0 < cut.coverage[0] < 1
    assert one.passes.items == [1, 2, 1]


def test_what_waits_is_answered_before_the_end(asking: Any) -> None:
    one = asking(most=4, wait_s=60)
    futures = [one.ask(vectors(1, i)) for i in range(3)]
    one.batcher.close()
    assert all(future.result(0).complete.all() for future in futures)
    assert one.reasons == ["closing"]


def test_many_threads_end_although_a_request_waits_for_a_pass(asking: Any) -> None:
    one = asking(most=64, threads=6)
    one.hold()
    waiting = one.ask(vectors(1, 1))
    closing = threading.Thread(target=one.batcher.close, daemon=True)
    closing.start()
    time.sleep(0.2)  # the idle threads have looked, and wait for the end of the pass
    one.go_on()
    closing.join(20)
    assert not closing.is_alive()
    assert waiting.result(0).complete.all()
