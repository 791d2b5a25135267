"""Searches by libfllm, whatever it runs them on."""

from __future__ import annotations

import time
import weakref
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fllm_export import _core
from fllm_export.engines.base import Request, Scan, UserFilter
from fllm_export.engines.names import LOG_PROBS
from fllm_export.engines.partial import Partial
from fllm_export.errors import BudgetError, BundleError, FllmError, HardwareError, UsageError
from fllm_export.table.table import Table

_ERRORS: dict[int, type[FllmError]] = {2: UsageError, 4: BundleError, 5: BudgetError, 6: HardwareError}


class CoreEngine:
    """A table that libfllm has open; it maps the files itself, and searches of many threads share passes."""

    name: ClassVar[str]

    def __init__(self, table: Table, threads: int, *, gpus: int = 0, gpu_bytes: int = 0) -> None:
        try:
            self._table = _core.Table.open(
                str(table.directory), threads=threads, engine=self.name, gpus=gpus, gpu_bytes=gpu_bytes
            )
        except _core.Error as error:
            raise _translated(error) from None
        self._filters: weakref.WeakKeyDictionary[UserFilter, _core.Filter] = weakref.WeakKeyDictionary()

    @property
    def isa(self) -> str:
        """Name of the instruction-set level that scans, or of the kind of GPU."""
        return str(self._table.describe()["isa"])

    def search(self, z: npt.NDArray[np.float32], request: Request) -> Scan:
        """Scan the table for a batch of item vectors, float32 [B, d]."""
        began = time.perf_counter()
        budget_ms = 0.0 if request.deadline is None else max(1e-6, (request.deadline - time.monotonic()) * 1e3)
        try:
            ids, keys, scores, logsumexp, rows_scored, complete, exact, _, _ = self._table.search(
                np.ascontiguousarray(z),
                request.k,
                sample=request.mode == "sample",
                seeds=np.array(request.seeds, np.uint64) if request.mode == "sample" else None,
                exact=request.exact,
                log_probs=LOG_PROBS.index(request.log_probs),
                budget_ms=budget_ms,
                filter=self._filter(request.filter),
            )
        except _core.Error as error:
            raise _translated(error) from None
        best = Partial(ids, keys, scores, logsumexp, np.ones(len(z)))
        scan_ms = (time.perf_counter() - began) * 1e3
        return Scan(best, rows_scored.astype(np.int64), complete.astype(bool), exact.astype(bool), scan_ms, 0.0)

    def _filter(self, wanted: UserFilter | None) -> _core.Filter | None:
        """Return libfllm's form of a filter, made once for each of ours."""
        if wanted is None:
            return None
        known = self._filters.get(wanted)
        if known is None:
            known = self._table.filter(wanted.user_ids, deny=wanted.deny)
            self._filters[wanted] = known
        return known


def _translated(error: _core.Error) -> FllmError:
    """Return the house's error for libfllm's; a status without one of its own is a bug, and stays what it is."""
    status, message = error.args
    if status not in _ERRORS:
        raise error
    return _ERRORS[status](message)
