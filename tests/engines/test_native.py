"""libfllm against the NumPy engine: the same users in the same order, on every instruction set of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fllm_export import BundleError, HardwareError, TopK, UsageError, UserTable, _core
from fllm_export.engines.registry import ENGINES
from fllm_export.table.codec_names import UNSKETCHED
from fllm_export.table.codecs import codec

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.standard_normal((4000, 72)).astype(np.float32) * GENERATOR.lognormal(size=(4000, 1)).astype(np.float32)
IDS = np.sort(GENERATOR.choice(1 << 40, 4000, replace=False))


def assert_same(found: TopK, expected: TopK, *, bits: bool = True) -> None:
    if bits:
        np.testing.assert_array_equal(found.user_ids, expected.user_ids)
        np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-5)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-5 * np.abs(expected.logsumexp).max())
    assert (found.log_probs <= 0).all()
    np.testing.assert_array_equal(found.coverage, expected.coverage)
    np.testing.assert_array_equal(found.complete, expected.complete)


def both(directory: Path, threads: int = 2) -> tuple[UserTable, UserTable]:
    return UserTable.open(directory, engine="native", threads=threads), UserTable.open(directory, engine="numpy")


@pytest.fixture(params=_core.cpu_levels())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FLLM_ISA", request.param)
    return str(request.param)


@pytest.mark.parametrize("quant", ENGINES["native"].codecs)
@pytest.mark.parametrize("biased", [False, True])
def test_the_answers_are_the_reference_engines(tmp_path: Path, isa: str, quant: str, biased: bool) -> None:
    bias = GENERATOR.standard_normal(4000).astype(np.float32) * 5 if biased else None
    UserTable.create(tmp_path / "t", ROWS, IDS, bias=bias, quant=quant, shard_bytes=1 << 17)
    native, reference = both(tmp_path / "t")
    for batch in (1, 2, 3, 17, 130):
        z = GENERATOR.standard_normal((batch, 72)).astype(np.float32)
        for k in (1, 100, 4000):
            assert_same(native.topk(z, k), reference.topk(z, k))
            fast = native.topk(z, k, log_probs="none")
            np.testing.assert_array_equal(fast.user_ids, native.topk(z, k).user_ids)
            assert np.isnan(fast.log_probs).all()
            assert not fast.log_probs_exact.any()
    sampled = {"mode": "sample", "seed": list(range(3))}
    z = GENERATOR.standard_normal((3, 72)).astype(np.float32)
    assert_same(native.topk(z, 50, **sampled), reference.topk(z, 50, **sampled))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_table_any_question(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    dim, users = data.draw(st.integers(1, 130)), data.draw(st.integers(1, 700))
    generator = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    kind = data.draw(st.sampled_from(["gauss", "ties", "spread", "zeros"]))
    rows = generator.standard_normal((users, dim)).astype(np.float32)
    if kind == "ties":
        rows = generator.integers(-1, 2, (users, dim)).astype(np.float32)
    if kind == "spread":
        rows *= np.float32(10.0) ** generator.integers(-18, 18, (users, 1)).astype(np.float32)
    if kind == "zeros":
        rows[generator.random(users) < 0.7] = 0
    z = generator.standard_normal((data.draw(st.integers(1, 20)), dim)).astype(np.float32)
    z *= np.float32(10.0) ** np.float32(data.draw(st.integers(-12, 3)))
    directory = tmp_path_factory.mktemp("t") / "t"
    quant = data.draw(st.sampled_from(ENGINES["native"].codecs))
    size, cluster = data.draw(st.sampled_from([1 << 12, 1 << 20])), data.draw(st.sampled_from(["yes", "no"]))
    UserTable.create(directory, rows, quant=quant, shard_bytes=size, cluster=cluster)
    native, reference = both(directory, data.draw(st.integers(1, 3)))
    k = data.draw(st.integers(1, users))
    found, expected = native.topk(z, k, log_probs="none"), reference.topk(z, k)
    # Sums of fp32 and fp16 rows are float64 sums in another order: a last digit may differ, and with it the order.
    if codec(quant).exact_query:
        np.testing.assert_array_equal(found.user_ids, expected.user_ids)
        np.testing.assert_array_equal(found.scores, expected.scores)
    else:
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)


def test_logsumexp_is_exact_to_1e_5_against_float64(tmp_path: Path, isa: str) -> None:
    rows = GENERATOR.standard_normal((60_000, 64)).astype(np.float32)
    UserTable.create(tmp_path / "t", rows)
    native, _ = both(tmp_path / "t")
    for scale in (0.01, 1.0, 30.0):
        z = (GENERATOR.standard_normal((20, 64)) * scale).astype(np.float32)
        decoded = np.concatenate([part for _, part in native.decoded()]).astype(np.float64)
        limit = np.abs(z).max(1, keepdims=True).astype(np.float64) / 8127
        scores = (np.rint(z / limit) * limit) @ decoded.T
        peak = scores.max(1)
        truth = peak + np.log(np.exp(scores - peak[:, None]).sum(1))
        for part in (slice(0, 1), slice(0, 20)):
            found = native.topk(z[part], 10).logsumexp.astype(np.float64)
            assert (np.abs(found - truth[part]) <= 1e-5 * np.abs(truth[part])).all()


@pytest.mark.parametrize("batch", [1, 40])
@pytest.mark.parametrize("engine", ["native", "numpy"])
def test_a_filter_lets_only_its_users_through(tmp_path: Path, engine: str, batch: int) -> None:
    UserTable.create(tmp_path / "t", ROWS, IDS, shard_bytes=1 << 16)
    table = UserTable.open(tmp_path / "t", engine=engine)
    z = GENERATOR.standard_normal((batch, 72)).astype(np.float32)
    everybody = table.topk(z, 4000)
    chosen = GENERATOR.choice(IDS, 300, replace=False)
    for kept, made in (
        (chosen, table.filter(allow=[*chosen, 5])),
        (np.setdiff1d(IDS, chosen), table.filter(deny=chosen)),
    ):
        found = table.topk(z, 200, filter=made)
        for item in range(batch):
            expected = [user for user in everybody.user_ids[item] if user in set(kept.tolist())][:200]
            assert found.user_ids[item].tolist() == expected
        np.testing.assert_allclose(found.logsumexp, everybody.logsumexp, rtol=1e-6)
    few = table.topk(z, 10, filter=table.filter(allow=chosen[:3]))
    assert (few.user_ids[:, 3:] == -1).all()
    assert (np.sort(few.user_ids[:, :3]) == np.sort(chosen[:3])).all()
    with pytest.raises(UsageError, match="either"):
        table.filter()


def test_a_budget_is_kept_and_told(tmp_path: Path) -> None:
    rows = np.tile(ROWS, (100, 1))
    UserTable.create(tmp_path / "t", rows)
    native, _ = both(tmp_path / "t")
    z = GENERATOR.standard_normal((300, 72)).astype(np.float32)
    cut = native.topk(z, 100, budget_ms=1.0)
    assert not cut.complete.any()
    assert (cut.coverage > 0).all()
    assert (cut.coverage < 1).all()
    assert not cut.log_probs_exact.any()
    assert native.topk(z, 100, budget_ms=60_000).complete.all()


def test_many_callers_get_the_answers_they_would_get_alone(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", ROWS, shard_bytes=1 << 16)
    native, _ = both(tmp_path / "t")
    questions = [GENERATOR.standard_normal((1 + i % 5, 72)).astype(np.float32) for i in range(64)]
    alone = [native.topk(z, 10 + i) for i, z in enumerate(questions)]
    wrong: list[int] = []

    def ask(i: int) -> None:
        for _ in range(10):
            found = native.topk(questions[i], 10 + i)
            if not np.array_equal(found.user_ids, alone[i].user_ids):
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_64_callers_while_the_table_is_replaced(tmp_path: Path) -> None:
    """Each answer is wholly the old table's or wholly the new one's."""
    UserTable.create(tmp_path / "t", ROWS[:2000])
    UserTable.create(tmp_path / "other", ROWS[2000:])
    table = UserTable.open(tmp_path / "t", engine="native", threads=2)
    z = GENERATOR.standard_normal((2, 72)).astype(np.float32)
    answers = [UserTable.open(tmp_path / name, engine="numpy").topk(z, 20).user_ids for name in ("t", "other")]
    stop, failures = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            found = table.topk(z, 20).user_ids
            if not any(np.array_equal(found, answer) for answer in answers):
                failures.append(found)

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        (tmp_path / "t").rename(tmp_path / "aside")
        (tmp_path / "other").rename(tmp_path / "t")
        (tmp_path / "aside").rename(tmp_path / "other")
        table.reopen()
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_an_unknown_instruction_set_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", ROWS)
    code = "import sys; from fllm_export import UserTable; UserTable.open(sys.argv[1], engine='native')"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "t"],
        env={**os.environ, "FLLM_ISA": "avx1024"},
        capture_output=True,
        text=True,
    )
    assert HardwareError.__name__ in done.stderr
    assert "avx1024" in done.stderr
    assert "scalar" in done.stderr


def test_a_table_that_vanishes_between_the_readers_is_a_bundle_error(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", ROWS)
    table = UserTable.open(tmp_path / "t", engine="native")
    (tmp_path / "t" / "00000.safetensors").unlink()
    with pytest.raises(BundleError):
        table.reopen()
    assert table.topk(ROWS[:1], 5).complete.all()


def sketched(directory: Path, kind: str, quant: str) -> None:
    rows = GENERATOR.standard_normal((17_000, 80)).astype(np.float32)
    if kind == "low rank":
        rows = (rows[:, :9] @ GENERATOR.standard_normal((9, 80)) + 0.05 * rows).astype(np.float32)
    if kind == "spread":
        rows *= np.float32(10.0) ** GENERATOR.integers(-15, 15, (17_000, 1)).astype(np.float32)
    if kind == "zeros":
        rows[::2] = 0
        rows[1::4, 7] = 1e3
    bias = GENERATOR.standard_normal(17_000).astype(np.float32) * 9 if kind == "biased" else None
    UserTable.create(directory, rows, bias=bias, quant=quant, shard_bytes=1 << 20, sketch="yes")


@pytest.mark.parametrize(
    ("kind", "quant"),
    [
        *((kind, "int8") for kind in ("low rank", "biased", "spread", "zeros")),
        *(("full rank", q) for q in ENGINES["native"].codecs if q not in UNSKETCHED),
    ],
)
def test_the_sketch_proves_the_exact_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quant: str, kind: str
) -> None:
    sketched(tmp_path / "t", kind, quant)
    z = GENERATOR.standard_normal((3, 80)).astype(np.float32) / 3
    for level in _core.cpu_levels():
        monkeypatch.setenv("FLLM_ISA", level)
        native, reference = both(tmp_path / "t")
        for k in (1, 100, 3000):
            expected = reference.topk(z, k)
            for log_probs in ("none", "estimate"):
                found = native.topk(z, k, log_probs=log_probs)
                if codec(quant).exact_query:
                    np.testing.assert_array_equal(found.user_ids, expected.user_ids)
                np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)
                assert found.complete.all()
                assert not found.log_probs_exact.any()
            if kind in ("full rank", "low rank"):
                # The distribution is steep and one row in 9 is drawn: the error is not small, and is told.
                assert (np.abs(found.logsumexp - expected.logsumexp) <= found.log_prob_error).all()
        assert native.topk(z, 10).log_probs_exact.all()


def test_more_rows_survive_the_sketch_than_can_wait(tmp_path: Path) -> None:
    # Rows of one direction and the reverse, in ascending order of score: bounds rule out none of the better half.
    rows = np.linspace(1, 2, 70_000, dtype=np.float32)[:, None] * GENERATOR.standard_normal(64).astype(np.float32)
    rows[::2] *= -1
    rows[100:300] = rows[-1]
    UserTable.create(tmp_path / "t", rows, sketch="yes")
    native, reference = both(tmp_path / "t")
    for z in (rows[-1], -rows[-1], np.zeros(64, np.float32), rows[-1] * np.float32(1e30)):
        for k in (1, 100, 40_000):
            expected = reference.topk(z, k)
            for budget in (None, 1e4):
                assert_ranking(native.topk(z, k, log_probs="none", budget_ms=budget), expected)
            assert_ranking(native.topk(z, k, log_probs="estimate"), expected)
        best = reference.topk(z, 500).user_ids[0]
        denied, kept = native.filter(deny=best), reference.filter(deny=best)
        assert_ranking(native.topk(z, 100, log_probs="none", filter=denied), reference.topk(z, 100, filter=kept))


def assert_ranking(found: TopK, expected: TopK) -> None:
    np.testing.assert_array_equal(found.user_ids, expected.user_ids)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.complete.all()


@pytest.mark.parametrize("rank", [12, 64])
def test_the_statistical_sketch_finds_999_of_1000(tmp_path: Path, rank: int) -> None:
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((60_000, rank)) @ generator.standard_normal((rank, 64)) / np.sqrt(rank)
    UserTable.create(tmp_path / "t", rows.astype(np.float32), sketch="yes")
    native, _ = both(tmp_path / "t")
    z = generator.standard_normal((100, 64)).astype(np.float32)
    hits = 0
    for item in z:
        exact = native.topk(item, 100, log_probs="none").user_ids[0]
        hits += len(np.intersect1d(native.topk(item, 100, exact=False).user_ids[0], exact))
    assert hits / (100 * len(z)) >= 0.999
