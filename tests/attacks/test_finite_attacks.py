"""Numbers that are not finite, written into a table behind its back: no engine answers from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fllm_export import Bundle, BundleError, Runtime, UserTable
from fllm_export.engines.registry import ENGINES
from fllm_export.table.table import Table

from .test_table_attacks import data_offset, shard

ROWS = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
ROW = 50
NUMBERS = {
    ("scales", "nan"): np.float32(np.nan),
    ("scales", "inf"): np.float32(np.inf),
    ("bias", "nan"): np.float32(np.nan),
    ("bias", "inf"): np.float32(-np.inf),
    ("codes fp32", "nan"): np.float32(np.nan),
    ("codes fp32", "inf"): np.float32(-np.inf),
    ("codes fp16", "nan"): np.float16(np.nan),
    ("codes fp16", "inf"): np.float16(np.inf),
    ("codes fp8", "nan"): np.uint8(0xFF),
}


def spoil(table: Path, tensor: str, number: np.generic, numbers_per_row: int = 1) -> None:
    """Overwrite the first number of a row in a table's only shard."""
    content = bytearray(shard(table).read_bytes())
    start = data_offset(shard(table), tensor) + ROW * numbers_per_row * number.itemsize
    content[start : start + number.itemsize] = number.tobytes()
    shard(table).write_bytes(content)


@pytest.mark.parametrize("log_probs", ["exact", "none"])
@pytest.mark.parametrize(("place", "kind"), NUMBERS)
def test_numpy_names_the_user(tmp_path: Path, place: str, kind: str, log_probs: str) -> None:
    tensor, _, quant = place.partition(" ")
    UserTable.create(tmp_path / "t", ROWS, np.arange(200) * 3, quant=quant or "int8", bias=np.zeros(200))
    spoil(tmp_path / "t", tensor, NUMBERS[place, kind], 16 if quant else 1)
    table = UserTable.open(tmp_path / "t", engine="numpy")
    with pytest.raises(BundleError, match="the row of user 150 holds a number that is not finite"):
        table.topk(ROWS[:1], 5, log_probs=log_probs)
    with pytest.raises(BundleError, match="the row of user 150"):
        Table(tmp_path / "t").check_finite(next(Table(tmp_path / "t").tiles()))


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime", "native"])
def test_a_bundle_of_such_a_table_answers_nothing(tiny_bundle: Bundle, tmp_path: Path, engine: str) -> None:
    shutil.copytree(tiny_bundle.path, tmp_path / "b")
    spoil(tmp_path / "b" / "users", "scales", np.float32(np.nan))
    runtime = Runtime.open(tmp_path / "b", engine=engine)
    user = Table(tmp_path / "b" / "users").shards[0].ids[ROW]
    for _ in range(2):
        with pytest.raises(BundleError, match=f"user {user}\\b.*finite"):
            runtime.topk(["a film"], 5)


@pytest.mark.parametrize("quant", ENGINES["native"].codecs)
@pytest.mark.parametrize("engine", ["numpy", "native"])
def test_scores_beyond_float32_are_no_answer(tmp_path: Path, engine: str, quant: str) -> None:
    UserTable.create(tmp_path / "t", ROWS * np.float32(1e30), quant=quant)
    table = UserTable.open(tmp_path / "t", engine=engine)
    items = np.stack([ROWS[0] / 10, ROWS[1] * 1e30]).astype(np.float32)
    with pytest.raises(BundleError, match=r"^item 1: .*Scale the item vector"):
        table.topk(items, 5)
    with pytest.raises(BundleError, match=r"^item 0: .*Scale the item vector"):
        table.topk(items[1], 5, log_probs="none")
    assert table.topk(items[0], 5).complete.all()
