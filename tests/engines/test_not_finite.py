"""Rows that are not finite in a table that was written by something else: no answer is built on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from fllm_export import BundleError, UsageError, UserTable
from fllm_export.table.codec_names import CODEC_NAMES, UNSKETCHED

ROWS, DIM, BAD = 3000, 64, 1234


@pytest.fixture(scope="module", params=CODEC_NAMES)
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((ROWS, DIM)).astype(np.float32)
    path = tmp_path_factory.mktemp(request.param) / "users"
    bias = generator.standard_normal(ROWS).astype(np.float32)
    sketch = "no" if request.param in UNSKETCHED else "yes"
    UserTable.create(path, rows, bias=bias, quant=request.param, sketch=sketch, cluster="no")
    return path


def damaged(table: Path, copy: Path, tensor: str, number: float) -> Path | None:
    """A copy of the table in which one row's scale, bias or first code is another number, if its codec has one."""
    shutil.copytree(table, copy)
    shard = next(copy.glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    length = int.from_bytes(content[:8], "little")
    entry = json.loads(content[8 : 8 + length])[tensor]
    begin = 8 + length + entry["data_offsets"][0]
    stored = {
        "F32": np.float32(number).tobytes(),
        "F16": np.float16(number).tobytes(),
        "F8_E4M3": b"\x7f" if np.isnan(number) else None,
    }.get(entry["dtype"])
    if stored is None:
        return None
    row_bytes = (entry["data_offsets"][1] - entry["data_offsets"][0]) // ROWS
    content[begin + BAD * row_bytes : begin + BAD * row_bytes + len(stored)] = stored
    shard.write_bytes(content)
    return copy


def refused(search: Callable[[], object], *words: str) -> None:
    with pytest.raises(BundleError) as error:
        search()
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tensor", ["scales", "bias", "codes"])
def test_no_answer_is_built_on_such_a_row(table: Path, tensor: str, number: float, tmp_path: Path) -> None:
    directory = damaged(table, tmp_path / "users", tensor, number)
    if directory is None:
        return
    opened = UserTable.open(directory, threads=2)
    z = np.random.default_rng(4).standard_normal((40, DIM)).astype(np.float32)
    where = (f"00000.safetensors: row {BAD} (user {BAD})", "no finite score")
    for items in (1, 5, 40):
        refused(lambda items=items: opened.topk(z[:items], 10), *where)
        refused(lambda items=items: opened.topk(z[:items], 10, mode="sample"), *where)
        if items > 8:
            refused(lambda items=items: opened.topk(z[:items], 10, log_probs="none"), *where)
    # A search by the sketch does not read the rows that it rules out: what it returns is finite in any case.
    for exact in (True, False):
        for log_probs in ("none", "estimate"):
            with suppress(BundleError):
                answer = opened.topk(z[:1], 10, log_probs=log_probs, exact=exact)
                assert np.isfinite(answer.scores).all()
                assert BAD not in answer.user_ids


def test_an_item_vector_is_named(table: Path) -> None:
    z = np.zeros((3, DIM), np.float32)
    z[2, 5] = np.nan
    with pytest.raises(UsageError, match=r"2.*finite"):
        UserTable.open(table).topk(z, 10)


def test_scores_beyond_float32_are_told(table: Path) -> None:
    z = np.full((1, DIM), 3e38, np.float32)
    with pytest.raises(BundleError, match="Scale the item vector"):
        UserTable.open(table).topk(z, 10)
