"""The case ``plans`` of benchmarks.gpu measures what it says, on the emulated GPU."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

CEILINGS = {"device_read_gb_s": 1000.0, "int8_tops": 10.0, "host_to_device_gb_s": 10.0}


@pytest.fixture
def bench() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "gpu" / "plans.py")))


def test_lines_are_exact_and_complete(emulate: Callable[..., Any], bench: SimpleNamespace) -> None:
    emulate()
    times: list[float] = []

    def seconds(work: Callable[[], object]) -> float:
        work()
        times.append(0.001 * (len(times) + 1))
        return times[-1]

    assert bench.unavailable() is None
    one, many, streamed = bench.lines(seconds, CEILINGS, 0.001)
    assert [line.exact for line in (one, many, streamed)] == [True] * 3
    assert (one.value, one.unit) == (1.0, "ms")
    assert many.value == pytest.approx(2 * 2 * 20_000 * 64 * 32 / 0.002 / 1e12)
    assert 0 < streamed.value <= 20_000 * 68 * 1.1 / 0.003 / 1e9
    wrong = SimpleNamespace(user_ids=np.zeros((1, 2)), scores=np.zeros((1, 2)), logsumexp=np.zeros(1))
    right = SimpleNamespace(user_ids=np.ones((1, 2)), scores=np.zeros((1, 2)), logsumexp=np.zeros(1))
    assert not bench.is_same(wrong, right)


def test_what_is_missing_is_told(
    emulate: Callable[..., Any], bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulate()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "TensorRT cannot be loaded" in bench.unavailable()
