"""Ranking the candidates of a search again, by the refinement rows of the table: the definition.

A search with ``refine`` = c finds the c x K best users by the rows that are scanned, and gives each of them the score
of its refinement row with the whole item vector (:mod:`fllm_export.engines.scores`). In the mode ``sample`` the key is
its logit plus the noise that the user had in the search. The K largest keys are the answer; of equal ones, those of
the smaller ids.

The denominator is a sum over all users of the best score that is known of each: with L the logsumexp of the search, s
the scores of the candidates in the search, r those by their refinement rows and w the link (:mod:`fllm_export.link`),

    logsumexp = log( exp(L) - sum w(s) + sum w(r) )
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Answer, Request
from fllm_export.engines.gumbel import gumbel
from fllm_export.engines.partial import NO_USER
from fllm_export.engines.query import Query
from fllm_export.engines.scores import score_rows
from fllm_export.errors import BundleError
from fllm_export.link import Link
from fllm_export.table.refinement import Refinement
from fllm_export.table.shard import Tile
from fllm_export.table.table import Table

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class Refiner:
    """Ranks the candidates of searches of one open table again.

    Args:
        table: the open table.
        rows: its refinement rows.
    """

    def __init__(self, table: Table, rows: Refinement) -> None:
        self._table = table
        self._rows = rows

    def scores(self, z: F32, ids: I64) -> F32:
        """Return the scores of users by their refinement rows, float32 [B, n].

        Args:
            z: whole item vectors, float32 [B, d].
            ids: users of each item, int64 [B, n].

        Raises:
            BundleError: a score is not finite.
        """
        query = Query.quantised(z) if self._rows.codec.exact_query else Query.exact(z)
        scores = np.stack([self._scores(users, query.part(slice(i, i + 1))) for i, users in enumerate(ids)])
        if not np.isfinite(scores).all():
            raise BundleError(
                f"{self._table.directory}: the score of a refinement row is not finite",
                expected="finite numbers in every row, and finite scores",
                fix="Scale the item vector, or build the table again",
            )
        return scores

    def _scores(self, ids: I64, query: Query) -> F32:
        known, numbers = self._by_id
        rows = numbers[np.searchsorted(known, ids)]
        tile = Tile(self._rows.gather(rows), ids, None if self._bias is None else self._bias[rows])
        found: F32 = score_rows(self._rows.codec, self._rows.dim, tile, query)[0]
        return found

    @cached_property
    def _by_id(self) -> tuple[I64, I64]:
        """The ids of all users, ascending, and the numbers of their rows; a deleted row may have the id of another."""
        stored = np.concatenate([shard.ids for shard in self._table.shards])
        rows = np.arange(len(stored))
        rows = rows[~self._table.tombstones.marks(rows)]
        order = rows[np.argsort(stored[rows])]
        return stored[order], order

    @cached_property
    def _bias(self) -> F32 | None:
        biases = [shard.bias for shard in self._table.shards if shard.bias is not None]
        return np.concatenate(biases) if biases else None


def candidates(request: Request, rows: int) -> Request:
    """Return the request for the candidates of a request, in a table of so many rows, with their refined scores."""
    wanted = request.k * max(1, request.refine)
    return replace(request, k=min(rows, wanted), refine=0, refined_scores=True)


def ranked_again(found: Answer, request: Request, link: Link) -> Answer:
    """Return the answer to a request with ``refine``, from that of :func:`candidates`.

    Args:
        found: the candidates of each item, with their refined scores. :data:`NO_USER` fills up where fewer were found.
        request: what was requested.
        link: of the table.
    """
    assert found.refined_scores is not None
    nobody = found.ids == NO_USER
    scores = np.where(nobody, np.float32(-np.inf), found.refined_scores)
    logits = link.logits(scores)
    keys = scores if request.mode == "topk" else _perturbed(logits, found.ids, request.seeds)
    order = np.lexsort((found.ids, -keys), axis=1)[:, : request.k]
    logsumexp = corrected(found.logsumexp, link.logits(np.where(nobody, -np.inf, found.scores)), logits)
    # The sum is off by as much as before, which is another share of it.
    off = np.expm1(found.log_prob_error.astype(np.float64)) * np.exp(found.logsumexp - logsumexp)
    ids, keys, scores = (np.take_along_axis(array, order, 1) for array in (found.ids, keys, scores))
    return replace(
        found,
        ids=ids,
        keys=keys,
        scores=scores,
        logsumexp=logsumexp,
        log_prob_error=np.log1p(off).astype(np.float32),
        log_probs_exact=np.zeros_like(found.log_probs_exact),
        refined_scores=scores if request.refined_scores else None,
    )


def corrected(logsumexp: F64, old: F64, new: F64) -> F64:
    """Return the logsumexp [B] of all users in which the candidates count by their refined scores.

    Args:
        logsumexp: of the search, float64 [B].
        old: logits of the candidates in the search, float64 [B, n].
        new: their refined logits, float64 [B, n].
    """
    reference = np.maximum(logsumexp, new.max(1, initial=-np.inf))
    others = np.exp(logsumexp - reference) - np.exp(old - reference[:, None]).sum(1)
    found: F64 = reference + np.log(np.maximum(others, 0.0) + np.exp(new - reference[:, None]).sum(1))
    return found


def _perturbed(logits: F64, ids: I64, seeds: tuple[int, ...]) -> F32:
    noise = np.stack([gumbel(seed, users) for seed, users in zip(seeds, ids, strict=True)])
    return (logits + noise).astype(np.float32)
