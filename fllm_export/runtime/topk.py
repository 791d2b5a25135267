"""The answer: the best users of each item, with exact probabilities and what was read to find them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Answer, Request
from fllm_export.engines.partial import NO_USER
from fllm_export.link import Link


@dataclass(frozen=True)
class TopK:
    """The K best users, or K sampled users, of B items.

    Ordered by score descending, then user id ascending (``sample``: by logit plus noise). Where the budget ended
    before K rows were scored, the rest of a row holds user id -1 and scores of minus infinity.

    Attributes:
        user_ids: int64 [B, k].
        scores: float32 [B, k], the scores s_u.
        log_probs: float32 [B, k], log p_u = logit of s_u - logsumexp of the rows scored; exact when ``complete``. The
            logit is s_u itself, or what the table's link (:mod:`fllm_export.link`) makes of it.
        logsumexp: float32 [B], of the logits of the rows scored.
        coverage: float32 [B], rows scored / rows of the table that answered.
        complete: bool [B], whether an unlimited budget would give the same answer.
        exact: bool [B], whether these are provably the best users of the table that answered. Of a refined answer:
            whether its candidates are provably the c x k best by the rows that are scanned, of which these are the
            best by their refinement rows.
        log_probs_exact: bool [B], whether logsumexp is the sum over every user; otherwise it covers the rows scored, or
            is an estimate, or is NaN because it was not requested. Of a refined answer it is an estimate: the sum has
            refined scores for the candidates alone.
        log_prob_error: float32 [B], the most by which logsumexp, and so each log-probability, is off; NaN where that is
            not known because the budget left rows out of the sum, or where there is no sum.
        log_probs_certified: bool [B], whether ``log_prob_error`` is proven. Otherwise it holds with a probability of
            95%.
        generation: version number of the table that answered.
        timings_ms: wall time of each stage of this call: ``scan`` and ``merge``, and from texts also ``tokenise``
            and ``encode``.
    """

    user_ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    log_probs: npt.NDArray[np.float32]
    logsumexp: npt.NDArray[np.float32]
    coverage: npt.NDArray[np.float32]
    complete: npt.NDArray[np.bool_]
    exact: npt.NDArray[np.bool_]
    log_probs_exact: npt.NDArray[np.bool_]
    log_prob_error: npt.NDArray[np.float32]
    log_probs_certified: npt.NDArray[np.bool_]
    generation: int
    timings_ms: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: Answer, request: Request, link: Link) -> TopK:
        """Return what an engine answered to a request, for a table with that link."""
        ids, scores = answer.ids, answer.scores
        if ids.shape[1] < request.k:
            missing = ((0, 0), (0, request.k - ids.shape[1]))
            ids = np.pad(ids, missing, constant_values=NO_USER)
            scores = np.pad(scores, missing, constant_values=-np.inf)
        known = request.log_probs != "none"
        unknown = np.full(len(ids), np.nan, np.float32)
        return cls(
            user_ids=ids,
            scores=scores,
            log_probs=_log_probs(scores, answer, link) if known else np.full(scores.shape, np.nan, np.float32),
            logsumexp=answer.logsumexp.astype(np.float32) if known else unknown,
            coverage=(answer.rows_scored / answer.rows).astype(np.float32),
            complete=answer.complete,
            exact=answer.exact,
            log_probs_exact=answer.log_probs_exact & known,
            log_prob_error=answer.log_prob_error if known else unknown,
            log_probs_certified=answer.log_probs_certified & known,
            generation=answer.generation,
            timings_ms={"scan": answer.scan_ms, "merge": answer.merge_ms},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON-ready values, one entry per item.

        Users that the budget left out are absent; log-probabilities that were not requested are None.
        """
        items = []
        for row, users in enumerate(self.user_ids):
            found = users != NO_USER
            items.append(
                {
                    "users": [
                        {"user_id": int(u), "score": float(s), "log_prob": _known(p)}
                        for u, s, p in zip(
                            users[found], self.scores[row][found], self.log_probs[row][found], strict=True
                        )
                    ],
                    "logsumexp": _known(self.logsumexp[row]),
                    "coverage": float(self.coverage[row]),
                    "complete": bool(self.complete[row]),
                    "exact": bool(self.exact[row]),
                    "log_probs_exact": bool(self.log_probs_exact[row]),
                    "log_prob_error": _known(self.log_prob_error[row]),
                    "log_probs_certified": bool(self.log_probs_certified[row]),
                }
            )
        return {"items": items, "generation": self.generation, "timings_ms": self.timings_ms}


def _log_probs(scores: npt.NDArray[np.float32], answer: Answer, link: Link) -> npt.NDArray[np.float32]:
    return (link.logits(scores) - answer.logsumexp[:, None]).astype(np.float32)


def _known(number: np.float32) -> float | None:
    return None if np.isnan(number) else float(number)
