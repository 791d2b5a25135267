"""How much of a clustered table a search leaves unread, and how good an answer is that was cut off.

    python benchmarks/tile_study.py [--rows 200000] [--bundle BUNDLE ITEMS] ...

The tables are those of sketch_study.py. `ruled out` is the share of tiles whose bound lies below the 100th best score,
which no search can better; the other columns are the share of the exact top-100 that lies in so many of the tiles, the
most promising ones first. Prints one JSON line a case, then a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.sketch_study import Case, K, cases
from fllm_export.cli.output import columns
from fllm_export.table import tile_bounds
from fllm_export.table.clusters import clustered, features, principal_directions

COVERAGES = (0.02, 0.05, 0.1, 0.2, 0.5)
BOUND_SHARE = 0.3
"""As the native engine orders tiles: this part of the way from the score of a tile's middle to its bound."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--bundle", type=Path, nargs=2, action="append", default=[], metavar=("BUNDLE", "ITEMS"))
    options = parser.parse_args()
    lines = []
    for case in cases(options.rows, options.bundle):
        for tile_rows in (256, 1_024):
            found = study(case, tile_rows)
            about = {"benchmark": "tiles", "case": case.name, "rows": len(case.rows), "tile_rows": tile_rows}
            print(json.dumps({**about, **found}))
            lines.append([case.name, str(tile_rows), *(f"{share:.1%}" for share in found.values())])
    header = ["table", "rows per tile", "ruled out", *(f"top-100 in {share:.0%}" for share in COVERAGES)]
    print("\n" + columns(header, lines))


def study(case: Case, tile_rows: int) -> dict[str, float]:
    """Return the shares of one table, means over its items."""
    directions = principal_directions(case.rows[:: max(1, len(case.rows) // 16_384)])
    order = clustered(features(case.rows, directions), tile_rows)
    starts = range(0, len(order), tile_rows)
    exact = case.rows.astype(np.float64)
    described = [tile_bounds.describe(exact[order[start : start + tile_rows]], None) for start in starts]
    units, extents = (np.stack(parts) for parts in zip(*described, strict=True))
    tile_of = np.empty(len(order), np.int64)
    tile_of[order] = np.arange(len(order)) // tile_rows
    ruled_out, reached = [], []
    for item in case.asked:
        scores = exact @ item
        best = np.argpartition(-scores, K - 1)[:K]
        bounds = tile_bounds.bounds(units, extents, item)
        middles = extents[:, :2].mean(1) * (units @ item)
        ranks = np.empty(len(bounds), np.int64)
        ranks[np.argsort(-(middles + BOUND_SHARE * (bounds - middles)))] = np.arange(len(bounds))
        ruled_out.append(float((bounds < scores[best].min()).mean()))
        reached.append([float((ranks[tile_of[best]] < share * len(bounds)).mean()) for share in COVERAGES])
    names = (f"top_in_{share:g}" for share in COVERAGES)
    return {"ruled_out": float(np.mean(ruled_out)), **dict(zip(names, np.mean(reached, 0), strict=True))}


if __name__ == "__main__":
    main()
