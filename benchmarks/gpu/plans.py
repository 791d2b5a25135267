"""The engine ``tensorrt`` on the GPU at hand, by a head plan built there: the case ``plans`` of ``benchmarks.gpu``.

Needs fllm-export with one of the extras ``tensorrt`` and ``tensorrt-rtx``, and onnx. Where something is missing
:func:`unavailable` says what.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROWS, DIM, BATCH, K = 20_000_000, 64, 32, 100


class Line(NamedTuple):
    """What ``Bench.say`` prints."""

    case: str
    value: float
    unit: str
    bar: str
    met: bool
    exact: bool
    note: str


def unavailable() -> str | None:
    """Return why no plan can be built and run here, or None."""
    try:
        for name in ("onnx", "cuda.bindings.runtime", "fllm_export._core"):
            importlib.import_module(name)
        from fllm_export.engines.tensorrt.library import current_architecture, open_library

        open_library()
        current_architecture()
    except Exception as error:  # a missing package, library, driver or GPU: each says what it is
        return str(error)
    return None


def lines(seconds: Callable[[Callable[[], object]], float], ceilings: dict[str, float], scale: float) -> Iterator[Line]:
    """Measure one item, a batch, and a table of which half fits.

    Args:
        seconds: returns the time of a call.
        ceilings: the GPU's own, as ``benchmarks.gpu`` measures them.
        scale: times the rows.
    """
    rows = max(4096, int(ROWS * scale))
    z = np.random.default_rng(3).standard_normal((BATCH, DIM)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        users = write(Path(folder), rows)
        expected, table = open_both(users, z)
        read = rows * (DIM + 4) / ceilings["device_read_gb_s"] / 1e9
        one = seconds(lambda: table.topk(z[:1], K))
        bar = f"<= 1.25 x read ({read * 1e3:.2f} ms)"
        exact = is_same(table.topk(z[:1], K), expected)
        yield Line("head plan, one item", one * 1e3, "ms", bar, one <= 1.25 * read, exact, f"{one / read:.2f} x")
        many = seconds(lambda: table.topk(z, K))
        rate, top = 2 * 2 * rows * DIM * BATCH / many / 1e12, ceilings["int8_tops"]
        bar, exact = f">= 50 % of {top:.0f} TOPS", is_same(table.topk(z, K), expected)
        note = f"{100 * rate / top:.0f} %, {many * 1e3:.2f} ms"
        yield Line(f"head plan, {BATCH} items", rate, "TOPS", bar, rate >= top / 2, exact, note)
        del table
        _, table = open_both(users, z, gpu_bytes=rows * (DIM + 4) // 2)
        streamed: Any = table._engine._current
        rate = streamed.streamed_bytes / seconds(lambda: table.topk(z[:1], K)) / 1e9
        top, exact = ceilings["host_to_device_gb_s"], is_same(table.topk(z[:1], K), expected)
        bar, note = f">= 85 % of {top:.1f} GB/s", f"{100 * rate / top:.0f} %"
        yield Line("head plan, half streamed", rate, "GB/s", bar, rate >= 0.85 * top, exact, note)


def write(folder: Path, rows: int) -> Path:
    """Write a table with a head plan for this GPU, as they lie in a bundle; return the table's directory."""
    import onnx

    from fllm_export import UserTable
    from fllm_export.engines.tensorrt.library import current_architecture, open_library
    from fllm_export.engines.tensorrt.plan import RECORDS, RECORDS_VERSION, Plan, plan_name
    from fllm_export.files import publish_json
    from fllm_export.graphs.heads import CHUNK_ROWS, TENSORRT_K, tensorrt_head
    from fllm_export.plan_forms import PLAN_FORMS
    from fllm_export.plans.builder import build_plan
    from fllm_export.plans.profiles import head_profiles

    generator = np.random.default_rng(0)
    chunks = (
        generator.standard_normal((min(1 << 20, rows - first), DIM), np.float32) for first in range(0, rows, 1 << 20)
    )
    UserTable.create(folder / "users", chunks, quant="int8", sketch="no", cluster="no")
    form, library, architecture = PLAN_FORMS["int8"], open_library(), current_architecture()
    model = folder / f"{form.name}.onnx"
    onnx.save(tensorrt_head(form, DIM, bias=False, k=TENSORRT_K), model)
    profiles = head_profiles(DIM, BATCH, CHUNK_ROWS, TENSORRT_K, form.digits)
    built = build_plan(library, model, profiles, architecture)
    plans = folder / "head" / "plans"
    plans.mkdir(parents=True)
    name = plan_name(form.name, library.name, library.version, architecture)
    (plans / name).write_bytes(built.plan)
    plan = Plan(name, model.name, library.name, library.version, architecture, form.name, None, TENSORRT_K, CHUNK_ROWS)
    publish_json(plans / RECORDS, {"format_version": RECORDS_VERSION, "plans": [plan.to_dict()]})
    (folder / "manifest.json").write_text("{}")  # what says that this is a bundle
    return folder / "users"


def open_both(users: Path, z: np.ndarray, gpu_bytes: int | None = None) -> tuple[Any, Any]:
    """Return the CPU's answer and the table on the GPU."""
    import os

    from fllm_export import UserTable

    if gpu_bytes is not None:
        os.environ["FLLM_GPU_BYTES"] = str(gpu_bytes)
    try:
        return UserTable.open(users, engine="native").topk(z, K), UserTable.open(
            users, engine="tensorrt", head=users.parent / "head"
        )
    finally:
        os.environ.pop("FLLM_GPU_BYTES", None)


def is_same(found: Any, expected: Any) -> bool:
    """Return whether the first items' users, order and scores have the same bits, and the denominators agree."""
    items = len(found.user_ids)
    same = np.array_equal(found.user_ids, expected.user_ids[:items])
    same = same and np.array_equal(found.scores, expected.scores[:items])
    return bool(same and np.allclose(found.logsumexp, expected.logsumexp[:items], rtol=1e-5, atol=1e-4))
