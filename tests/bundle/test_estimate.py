"""The time of a build: every long step is in the sum, and the words show the arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fllm_export import Checkpoint
from fllm_export.bundle import estimate as module
from fllm_export.bundle.estimate import estimate
from fllm_export.bundle.job import PARITY_TEXTS, Job, Options
from fllm_export.bundle.wanted_size import WantedSize
from fllm_export.calibration.ranks import offered_dims
from fllm_export.planning.quantity import Quantity
from fllm_export.progress import silent
from fllm_export.table.options import TableOptions

TEXTS = [f"film number {number}" for number in range(PARITY_TEXTS + 400)]


@pytest.fixture
def checkpoint(tiny_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    return tiny_checkpoint("bert", users=500, dim=16)


def time_of(checkpoint: Checkpoint, folder: Path, quant: str = "int8", **options: Any) -> Quantity:
    chosen = Options(TableOptions(quant), 0.9, 20, "torch", 2, **options)
    return estimate(Job.prepare(checkpoint, TEXTS, chosen, silent), folder / "bundle").time


def test_the_sum_is_that_of_its_words(checkpoint: Checkpoint, tmp_path: Path) -> None:
    time = time_of(checkpoint, tmp_path)
    table, export, scores = (
        float(re.search(pattern, time.arithmetic)[1].replace(",", ""))  # type: ignore[index]
        for pattern in (r"([\d.]+) s table", r"(\d+) s export", r"([\d,]+) fp32 scores")
    )
    assert "256 parity texts / 60 per s" in time.arithmetic
    assert "calibration" not in time.arithmetic
    assert scores == 500 * PARITY_TEXTS
    assert time.value == pytest.approx(table + export + PARITY_TEXTS / 60 + scores * 35e-9, abs=0.6)


def test_calibration_texts_and_the_rankings_by_dimension_count(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert "256 parity and 400 calibration texts / 60 per s" in time_of(checkpoint, tmp_path, "int4").arithmetic
    scores = 500 * PARITY_TEXTS * (2 + len(offered_dims(16)))
    assert f"{scores:,} fp32 scores" in time_of(checkpoint, tmp_path, dim="auto").arithmetic


def test_the_search_for_a_size_counts(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = WantedSize(40, None)
    time = time_of(checkpoint, tmp_path, size=size)
    assert "256 parity and 100 choosing and 300 calibration texts / 60 per s" in time.arithmetic
    found = re.search(r"(\d+) forms of rows x 500 users x", time.arithmetic)
    assert found is not None
    monkeypatch.setattr(module, "_STORED_S", 1.0)
    more = time_of(checkpoint, tmp_path, size=size).value - time.value
    assert more == pytest.approx(int(found[1]) * 500 * 16, rel=0.01)


def test_a_larger_encoder_takes_longer(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "parameters", lambda _: 230_000_000)
    assert "256 parity texts / 6 per s" in time_of(checkpoint, tmp_path).arithmetic
