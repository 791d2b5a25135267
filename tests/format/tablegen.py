"""Make frozen tables, one for each feature of table.json that a reader must know, and one with all of them.

    python tests/format/tablegen.py tests/format/tables/v1

Run once for each feature, when it is released, and never again for it. Beside each table, a JSON file holds item
vectors and the answers that every later reader must give.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fllm_export import UserTable
from fllm_export.link import Link
from fllm_export.table.options import TableOptions
from fllm_export.table.writer import TableWriter, write_table

DIM, USERS, ITEMS, K = 8, 600, 3, 25
PARTED_USERS, CLUSTERS = 2_400, 6
SEED, NOISE_SEED = 11, 3


def rows(users: int, spread: float) -> np.ndarray:
    """Return rows [users, DIM] around a few centres."""
    generator = np.random.default_rng(SEED)
    centres = generator.standard_normal((CLUSTERS, DIM))
    noise = spread * generator.standard_normal((users, DIM))
    return (centres[generator.integers(0, CLUSTERS, users)] + noise).astype(np.float32)


def write(directory: Path, users: int = USERS, spread: float = 1.0, link: int = 0, **options: Any) -> UserTable:
    """Write a table and open it."""
    writer = TableWriter(directory, TableOptions(**options), dim=DIM, bias=False, link=Link(link))
    write_table(writer, iter([(rows(users, spread), None, None)]))
    return UserTable.open(directory, engine="numpy")


def change(table: UserTable) -> None:
    """Append, update and delete some users."""
    fresh = rows(len(table) + 40, 1.0)[-40:]
    table.append(fresh, np.arange(10_000, 10_040))
    table.update(fresh[:20], np.arange(0, 60, 3))
    table.delete(np.arange(1, 200, 7))
    (table.directory / ".writer.lock").unlink()


def tombstones(directory: Path) -> None:
    """A table with appended, updated and deleted users."""
    change(write(directory))


def everything(directory: Path) -> None:
    """A table that has every feature."""
    parted = {"users": PARTED_USERS, "spread": 0.02, "cluster": "yes", "sketch": "yes"}
    change(write(directory, link=2, refine="fp16", **parted))


TABLES: dict[str, Callable[[Path], Any]] = {
    "link": lambda directory: write(directory, link=2),
    "refinement": lambda directory: write(directory, quant="int2", refine="fp16"),
    "tile_ends": lambda directory: write(directory, PARTED_USERS, 0.02, cluster="yes", sketch="yes"),
    "tombstones": tombstones,
    "all": everything,
}


def make(folder: Path) -> None:
    """Write each table that is not there yet, and the answers it gives."""
    z = np.random.default_rng(NOISE_SEED).standard_normal((ITEMS, DIM)).astype(np.float32)
    for name, written in TABLES.items():
        if (folder / name).exists():
            continue
        written(folder / name)
        table = UserTable.open(folder / name, engine="numpy")
        answers = {mode: table.topk(z, K, mode=mode, seed=NOISE_SEED).to_dict()["items"] for mode in ("topk", "sample")}
        expected = {"item_vectors": z.tolist(), "users": len(table), **answers}
        (folder / f"{name}.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
