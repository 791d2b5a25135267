"""The TensorRT engine on an emulated GPU: users, order and scores of the NumPy engine, bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fllm_export import BudgetError, BundleError, HardwareError, UsageError, UserTable
from fllm_export.engines.base import Request
from fllm_export.engines.tensorrt import engine as engine_module
from fllm_export.engines.tensorrt import head_pass, proof
from fllm_export.engines.tensorrt.library import open_library
from fllm_export.engines.tensorrt.plan import RECORDS, Plan, plan_name
from fllm_export.files import publish_json
from fllm_export.plans.builder import build_plan
from fllm_export.plans.profiles import head_profiles
from tests.linked import set_link

Emulate = Callable[..., Any]

GENERATOR = np.random.default_rng(6)
ROWS = GENERATOR.standard_normal((9000, 40)).astype(np.float32)
IDS = np.sort(GENERATOR.choice(1 << 40, 9000, replace=False))
Z = GENERATOR.standard_normal((5, 40)).astype(np.float32)
K, CHUNK = 32, 64


def make_table(
    folder: Path,
    quant: str = "int8",
    *,
    rows: npt.NDArray[np.float32] = ROWS,
    k: int = K,
    max_batch: int = 4,
    **options: Any,
) -> Path:
    """Write a table as a bundle has it, with a head plan beside it."""
    users = folder / "users"
    UserTable.create(users, rows, quant=quant, **options)
    add_plan(folder, quant, rows.shape[1], k, 4, bias="bias" in options)
    return users


def add_plan(folder: Path, quant: str, dim: int, k: int, max_batch: int, *, bias: bool) -> None:
    import onnx

    from fllm_export.graphs.head import head_graph
    from fllm_export.plan_forms import PLAN_FORMS

    plans = folder / "head" / "plans"
    plans.mkdir(parents=True)
    form, digits = PLAN_FORMS[quant].name, PLAN_FORMS[quant].digits
    model = folder / "head" / f"{form}.onnx"
    onnx.save(head_graph(form, dim=dim, k=k, tile_rows=None, chunk_rows=CHUNK, bias=bias), model)
    library = open_library()
    architecture = "sm89" if library.builds_ahead else "sm90"
    built = build_plan(library, model, head_profiles(dim, max_batch, CHUNK, k, digits), architecture)
    name = plan_name(form, library.name, library.version, architecture)
    (plans / name).write_bytes(built.plan)
    plan = Plan(name, f"head/{form}.onnx", library.name, library.version, architecture, form, None, k, CHUNK)
    publish_json(plans / RECORDS, {"format_version": 1, "plans": [plan.to_dict()]})
    (folder / "manifest.json").write_text("{}")


def assert_same(users: Path, z: npt.NDArray[np.float32] = Z, *, times: int = 1, **options: Any) -> UserTable:
    table = UserTable.open(users, engine="tensorrt", head=users.parent / "head")
    expected = UserTable.open(users, engine="numpy").topk(z, **options)
    fp8 = (users.parent / "head" / "fp8_limbs.onnx").is_file()
    for _ in range(times):
        found = table.topk(z, **options)
        np.testing.assert_array_equal(found.user_ids, expected.user_ids)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-3 if fp8 else 1e-5)
        np.testing.assert_array_equal(found.coverage, expected.coverage)
        assert found.complete.all()
        assert found.exact.tolist() == [not fp8 and options.get("exact", True)] * len(z)
        assert (found.log_probs <= 0).all()
    return table


@pytest.mark.parametrize("quant", ["int8", "fp8"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gpu_bytes", [None, 300_000], ids=["resident", "streamed"])
def test_the_answers_are_the_reference_engines(
    emulate: Emulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quant: str, bias: bool, gpu_bytes: int | None
) -> None:
    emulate()
    if gpu_bytes is not None:
        monkeypatch.setenv("FLLM_GPU_BYTES", str(gpu_bytes))
    options: dict[str, Any] = {"bias": GENERATOR.standard_normal(9000).astype(np.float32) * 3} if bias else {}
    users = make_table(tmp_path, quant, ids=IDS, shard_bytes=1 << 17, **options)
    for k in (1, 10, K):
        table = assert_same(users, k=k)
    # One item goes by another profile, and more items than a plan takes go in groups.
    assert_same(users, Z[:1], k=5)
    engine: Any = table._engine._current
    assert (engine.streamed_bytes > 0) == (gpu_bytes is not None)


def test_a_place_is_filled_only_after_it_was_read(
    emulate: Emulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, _ = emulate()
    monkeypatch.setenv("FLLM_GPU_BYTES", "300000")
    users = make_table(tmp_path)
    table = UserTable.open(users, engine="tensorrt", head=users.parent / "head")
    engine: Any = table._engine._current
    cuda.streams[engine._staging._stream.handle].eager = True
    expected = UserTable.open(users, engine="numpy").topk(Z[:2], k=10)
    # A look that is taken again would hide what the first one got wrong.
    monkeypatch.setattr(head_pass.HeadPass, "_settle", lambda self, unproven, *rest: [])
    for _ in range(3):
        np.testing.assert_array_equal(table.topk(Z[:2], k=10).user_ids, expected.user_ids)


@pytest.mark.parametrize("rtx", [False, True])
@pytest.mark.parametrize("on_host", [(), ("valid_rows",)])
def test_both_libraries_and_both_places_of_a_number(
    emulate: Emulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rtx: bool, on_host: tuple[str, ...]
) -> None:
    cuda, trt = emulate(rtx=rtx, on_host=on_host)
    monkeypatch.setenv("FLLM_TENSORRT_CACHE", str(tmp_path / "cache"))
    users = make_table(tmp_path)
    assert_same(users, k=10, times=4)
    assert cuda.launches > 0
    assert trt.caches_read == []
    assert_same(users, k=10)
    assert trt.caches_read == ([b"kernels"] if rtx else [])


def test_graphs_serve_repeated_searches(emulate: Emulate, tmp_path: Path) -> None:
    cuda, trt = emulate()
    table = UserTable.open(make_table(tmp_path), engine="tensorrt", head=tmp_path / "head")
    for _ in range(2):
        table.topk(Z[:2], k=3)
    assert cuda.launches == 0
    runs = trt.runs
    table.topk(Z[2:4], k=4)
    assert cuda.launches == 1
    assert trt.runs == runs + 1


@pytest.mark.parametrize("rows", [1, 5, 63, 64, 65, 200])
def test_few_rows(emulate: Emulate, tmp_path: Path, rows: int) -> None:
    emulate()
    users = make_table(tmp_path, rows=ROWS[:rows])
    assert_same(users, k=min(rows, K))


def test_ties_by_the_thousand_are_settled(emulate: Emulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emulate()
    settled: list[int] = []
    settle = head_pass.HeadPass._settle

    def counted(self: head_pass.HeadPass, unproven: list[Any], *rest: Any) -> list[Any]:
        settled.append(len(unproven))
        return settle(self, unproven, *rest)

    monkeypatch.setattr(head_pass.HeadPass, "_settle", counted)
    rows = np.repeat(GENERATOR.integers(-2, 3, (3, 40)), 2000, axis=0).astype(np.float32)
    users = make_table(tmp_path, rows=rows, shard_bytes=1 << 16)
    assert_same(users, k=20)
    assert max(settled) > 0
    # What was looked at again lies in the places when the next search begins.
    monkeypatch.setenv("FLLM_GPU_BYTES", "200000")
    assert_same(users, k=20, times=3)


def test_rows_that_differ_by_less_than_the_plan_can_tell(emulate: Emulate, tmp_path: Path) -> None:
    emulate()
    rows = np.tile(ROWS[:1], (4000, 1)) * (1 + 1e-7 * GENERATOR.integers(0, 4, (4000, 1)))
    assert_same(make_table(tmp_path, rows=rows.astype(np.float32)), k=20)


def test_zeros_and_extremes(emulate: Emulate, tmp_path: Path) -> None:
    emulate()
    rows = ROWS.copy()
    rows[:100] = 0
    rows[100:200] *= 1e6
    users = make_table(tmp_path, rows=rows)
    z = np.stack([np.zeros(40, np.float32), Z[0] * 1e-4, Z[1] * 10])
    assert_same(users, z, k=30)
    table = UserTable.open(users, engine="tensorrt", head=users.parent / "head")
    with pytest.raises(UsageError, match="largest magnitude is 1e-30"):
        table.topk(np.full(40, 1e-30, np.float32), k=1)


def test_a_margin_of_nothing_is_found_out(emulate: Emulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tests can fail: without the margin, the emulated roundings lose users."""
    emulate()
    rows = np.tile(ROWS[:1], (4000, 1)) * (1 + 2e-7 * GENERATOR.integers(0, 40, (4000, 1)))
    users = make_table(tmp_path, rows=rows.astype(np.float32))
    monkeypatch.setattr(proof.Margin, "_of", lambda self, scores, items: 0.0)
    with pytest.raises(AssertionError):
        assert_same(users, k=20)


@pytest.mark.parametrize("gpu_bytes", [None, 300_000], ids=["resident", "streamed"])
def test_many_threads_at_once(
    emulate: Emulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu_bytes: int | None
) -> None:
    emulate()
    if gpu_bytes is not None:
        monkeypatch.setenv("FLLM_GPU_BYTES", str(gpu_bytes))
    users = make_table(tmp_path)
    table = UserTable.open(users, engine="tensorrt", head=users.parent / "head")
    expected = UserTable.open(users, engine="numpy").topk(Z, k=7)
    wrong: list[BaseException | int] = []

    def ask(item: int) -> None:
        try:
            for _ in range(3):
                ids = table.topk(Z[item], k=7).user_ids[0]
                if not np.array_equal(ids, expected.user_ids[item]):
                    wrong.append(item)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(item % 5,)) for item in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_spent_budget_scores_one_slice(emulate: Emulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emulate()
    monkeypatch.setattr(engine_module, "_SCRATCH_BYTES", 1 << 15)
    users = make_table(tmp_path)
    answer = UserTable.open(users, engine="tensorrt", head=users.parent / "head").topk(Z, k=3, budget_ms=1e-6)
    assert not answer.complete.any()
    assert (answer.coverage > 0).all()
    assert (answer.coverage < 0.5).all()
    assert (answer.user_ids >= 0).all()


def test_an_answer_whose_proof_had_no_time_says_so(
    emulate: Emulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulate()
    rows = np.repeat(GENERATOR.integers(-2, 3, (3, 40)), 1000, axis=0).astype(np.float32)
    table = UserTable.open(make_table(tmp_path, rows=rows), engine="tensorrt", head=tmp_path / "head")
    clock = iter([False] * 3 + [True] * 100)
    monkeypatch.setattr(Request, "expired", property(lambda self: next(clock)))
    monkeypatch.setattr(engine_module, "_SCRATCH_BYTES", 1 << 30)
    answer = table.topk(Z[:2], k=20, budget_ms=1e6)
    assert answer.coverage.tolist() == [1.0, 1.0]
    assert not answer.complete.any()
    assert answer.log_probs_exact.all()


def test_failures_are_the_houses_errors_and_leave_the_engine_usable(
    emulate: Emulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, _ = emulate()
    from .emulated_cuda import Status

    users = make_table(tmp_path)
    table = UserTable.open(users, engine="tensorrt", head=users.parent / "head")
    with pytest.raises(UsageError, match=r"k is 40 and the plan .* returns 32 users of a tile.*plan BUNDLE -k 40"):
        table.topk(Z, k=40)
    with pytest.raises(UsageError, match="cannot sample"):
        table.topk(Z, k=4, mode="sample")
    with pytest.raises(UsageError, match="cannot filter"):
        table.topk(Z, k=4, filter=table.filter(allow=[1]))
    cuda.failing["cudaMemcpyAsync"] = Status.cudaErrorDevicesUnavailable
    with pytest.raises(HardwareError, match=r"failed at copying .cudaErrorDevicesUnavailable: what it means"):
        table.topk(Z, k=4)
    cuda.failing.clear()
    expected = UserTable.open(users, engine="numpy").topk(Z, k=4)
    np.testing.assert_array_equal(table.topk(Z, k=4).user_ids, expected.user_ids)
    del table
    cuda.free_bytes = 1000
    with pytest.raises(BudgetError, match="GPU"):
        UserTable.open(users, engine="tensorrt", head=users.parent / "head")
    cuda.free_bytes = 1 << 30
    cuda.failing["cudaHostAlloc"] = Status.cudaErrorMemoryAllocation
    monkeypatch.setenv("FLLM_GPU_BYTES", "300000")
    with pytest.raises(BudgetError, match="pinned"):
        UserTable.open(users, engine="tensorrt", head=users.parent / "head")


def test_all_memory_is_given_back(emulate: Emulate, tmp_path: Path) -> None:
    cuda, _ = emulate()
    users = make_table(tmp_path)
    table = UserTable.open(users, engine="tensorrt", head=users.parent / "head")
    for _ in range(3):
        table.topk(Z, k=4)
    del table
    assert (len(cuda.memory), len(cuda.pinned)) == (0, 0)


def test_plans_that_do_not_fit_are_told_in_words(emulate: Emulate, tmp_path: Path) -> None:
    emulate()
    users = make_table(tmp_path)
    plans = tmp_path / "head" / "plans"
    emulate(rtx=True)
    with pytest.raises(HardwareError, match=r"built by tensorrt 11.4.0.106; expected tensorrt_rtx 1.7.1.* Run: fllm"):
        UserTable.open(users, engine="tensorrt", head=users.parent / "head")
    (plans / RECORDS).unlink()
    with pytest.raises(HardwareError, match=r"no plan that is wanted.* Run: fllm-export plan "):
        UserTable.open(users, engine="tensorrt", head=users.parent / "head")
    other = make_table(tmp_path / "other", rows=ROWS[:, :16])
    (other.parent / "head" / "plans").rename(plans.parent / "others")
    plans.rename(plans.parent / "none")
    (plans.parent / "others").rename(plans)
    with pytest.raises(BundleError, match="rows of 16 numbers; expected 40"):
        UserTable.open(users, engine="tensorrt", head=users.parent / "head")
    fp16 = tmp_path / "fp16" / "users"
    UserTable.create(fp16, ROWS, quant="fp16")
    set_link(other, 2)
    with pytest.raises(
        UsageError, match=r"computes exponentials, and .* has the link power 2.*Use the engine `native`"
    ):
        UserTable.open(other, engine="tensorrt", head=users.parent / "head")
    with pytest.raises(UsageError, match="does not scan fp16 rows"):
        UserTable.open(fp16, engine="tensorrt", head=tmp_path / "head")


def test_without_the_binding_or_a_gpu(emulate: Emulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    cuda, _ = emulate()
    users = make_table(tmp_path)
    monkeypatch.setattr(cuda, "cudaGetDeviceCount", lambda: (cuda.cudaError_t.cudaSuccess, 0))
    with pytest.raises(HardwareError, match="no GPU"):
        UserTable.open(users, engine="tensorrt", head=users.parent / "head")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(HardwareError, match="Python binding is missing"):
        UserTable.open(users, engine="tensorrt", head=users.parent / "head")
