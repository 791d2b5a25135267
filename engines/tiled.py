"""The loop over tiles that the engines written in Python share: score, select, merge, mind the deadline."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Answer, Request, TableFacts, told_errors
from fllm_export.engines.partial import Partial, merge
from fllm_export.engines.query import Query
from fllm_export.engines.refined import Refiner, candidates, ranked_again
from fllm_export.errors import BundleError
from fllm_export.table.shard import Tile
from fllm_export.table.table import Table


class TiledEngine(ABC):
    """Scores one tile per call. A tile's rows are checked for numbers that are not finite when it is first read."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.facts = TableFacts.of(table.layout)
        self._refiner = None if table.refinement is None else Refiner(table, table.refinement)
        self.exact = True  # whether scores are those of the definition, so that the best users are provably the best
        self._sound: set[int] = set()  # tiles whose numbers were found to be finite

    @abstractmethod
    def score_tile(self, tile: Tile, query: Query, request: Request) -> Partial:
        """Return the tile's best users and its (m, l)."""

    @np.errstate(over="ignore", invalid="ignore")
    def search(self, z: npt.NDArray[np.float32], request: Request) -> Answer:
        """Scan the table, and rank the candidates again where the request says so.

        Raises:
            BundleError: a row holds a number that is not finite, or a score is beyond float32's range.
        """
        leading = z[:, : self.table.layout.dim]
        if self._refiner is None or not (request.refine or request.refined_scores):
            return self._scan(leading, request)
        found = self._scan(leading, candidates(request, self.facts.rows))
        began = time.perf_counter()
        refined = replace(found, refined_scores=self._refiner.scores(z, found.ids))
        if request.refine:
            refined = ranked_again(refined, request, self.facts.link)
        return replace(refined, merge_ms=found.merge_ms + (time.perf_counter() - began) * 1e3)

    def query(self, z: npt.NDArray[np.float32]) -> Query:
        """Return item vectors as the table's codec scores them."""
        return Query.quantised(z) if self.table.codec.exact_query else Query.exact(z)

    def _scan(self, z: npt.NDArray[np.float32], request: Request) -> Answer:
        """Scan tile by tile and merge as it goes, so that memory does not grow with the table.

        Raises:
            BundleError: a row holds a number that is not finite, or a score is beyond float32's range.
        """
        query = self.query(z)
        best: Partial | None = None
        rows_scored, scan_s, merge_s = 0, 0.0, 0.0
        for number, tile in enumerate(self.table.tiles()):
            if best is not None and request.expired:
                break
            if number not in self._sound:
                self.table.check_finite(tile)
                self._sound.add(number)
            began = time.perf_counter()
            partial = self.score_tile(tile, query, request)
            scored = time.perf_counter()
            best = merge([partial] if best is None else [best, partial], request.k)
            rows_scored += tile.rows
            scan_s += scored - began
            merge_s += time.perf_counter() - scored
        if best is None:
            raise AssertionError("a table has at least one tile")
        _check_finite(best)
        complete = np.full(len(z), rows_scored == self.facts.rows)
        return Answer(
            ids=best.ids,
            keys=best.keys,
            scores=best.scores,
            logsumexp=best.logsumexp,
            rows_scored=np.full(len(z), rows_scored),
            complete=complete,
            exact=complete & self.exact,
            log_probs_exact=complete,
            log_prob_error=told_errors(np.where(complete, 0.0, np.nan), best.logsumexp),
            log_probs_certified=complete,
            rows=self.facts.rows,
            generation=self.facts.generation,
            scan_ms=scan_s * 1e3,
            merge_ms=merge_s * 1e3,
        )


def _check_finite(best: Partial) -> None:
    """Check the answer by its denominator too: of scores beyond float32's range, sums may be no numbers at all."""
    finite = np.isfinite(best.scores).all(1) & np.isfinite(best.logsumexp)
    if not finite.all():
        raise BundleError(
            f"item {int(np.argmin(finite))}: a score is not finite",
            expected="a finite score for every user",
            fix="Scale the item vector",
        )
