"""A small platform on disk: a user table, a recommender, and new items as JSON lines or Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from fllm_export import UserTable
from fllm_export.coldstart.onboard_parts import PARTS
from fllm_export.coldstart.vectors import Vectors

USERS, DIM, SPACE = 600, 16, 8


def make_platform(folder: Path, users: int = USERS) -> None:
    """Write ``users/`` (rows of DIM numbers) and ``recommender.safetensors`` (vectors of SPACE numbers)."""
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((users, DIM), dtype=np.float32)
    UserTable.create(folder / "users", rows, quant="int8")
    known = (rows @ generator.standard_normal((DIM, SPACE)) / 4).astype(np.float32)
    items = generator.standard_normal((80, SPACE)).astype(np.float32)
    Vectors(np.arange(users), known, np.arange(80), items).save(folder / "recommender.safetensors")


def records(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Return records of new items with vectors; every fifth has real users."""
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).round(4)
    found: list[dict[str, Any]] = [{"item_id": 1000 + n, "vector": row} for n, row in enumerate(vectors.tolist())]
    for number in range(0, count, 5):
        found[number]["users"] = [number % 7, 100 + number % 3]
    return found


def as_lines(items: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(item) + "\n" for item in items).encode()


def write_parquet(path: Path, items: list[dict[str, Any]], group: int = 1 << 20) -> None:
    columns = {name: [item.get(name) for item in items] for name in ("item_id", "vector", "users")}
    parquet.write_table(pa.table(columns), path, row_group_size=group)


def rows_of(out: Path) -> pa.Table:
    """Return all rows of an output directory in the order of its parts, by the files alone."""
    parts = sorted((out / PARTS).glob("*.parquet"))
    return pa.concat_tables([parquet.read_table(part).replace_schema_metadata(None) for part in parts]).combine_chunks()
