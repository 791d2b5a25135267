"""The loop over tiles that the engines written in Python share: score, select, merge, mind the deadline."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Answer, Request, TableFacts
from fllm_export.engines.partial import Partial, merge
from fllm_export.engines.query import Query
from fllm_export.table.shard import Tile
from fllm_export.table.table import Table


class TiledEngine(ABC):
    """Scores one tile per call. Holds no state between calls but the table itself."""

    def __init__(self, table: Table) -> None:
        self.table = table
        layout = table.layout
        self.facts = TableFacts(layout.rows, layout.dim, layout.codec, layout.generation)

    @abstractmethod
    def score_tile(self, tile: Tile, query: Query, request: Request) -> Partial:
        """Return the tile's best users and its (m, l)."""

    def search(self, z: npt.NDArray[np.float32], request: Request) -> Answer:
        """Scan tile by tile and merge as it goes, so that memory does not grow with the table."""
        query = Query.quantised(z) if self.table.codec.exact_query else Query.exact(z)
        best: Partial | None = None
        rows_scored, scan_s, merge_s = 0, 0.0, 0.0
        for tile in self.table.tiles():
            if best is not None and request.expired:
                break
            began = time.perf_counter()
            partial = self.score_tile(tile, query, request)
            scored = time.perf_counter()
            best = merge([partial] if best is None else [best, partial], request.k)
            rows_scored += tile.rows
            scan_s += scored - began
            merge_s += time.perf_counter() - scored
        if best is None:
            raise AssertionError("a table has at least one tile")
        complete = np.full(len(z), rows_scored == self.facts.rows)
        return Answer(
            ids=best.ids,
            keys=best.keys,
            scores=best.scores,
            logsumexp=best.logsumexp,
            rows_scored=np.full(len(z), rows_scored),
            complete=complete,
            exact=complete,
            log_probs_exact=complete,
            rows=self.facts.rows,
            generation=self.facts.generation,
            scan_ms=scan_s * 1e3,
            merge_ms=merge_s * 1e3,
        )
