"""Searches by libfllm: on CPUs (the engine ``native``) or on GPUs (the engine ``cuda``)."""

from __future__ import annotations

import time
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.compiled import _core
from fllm_export.engines.base import Answer, Request, TableFacts, UserFilter
from fllm_export.engines.names import LOG_PROBS
from fllm_export.engines.turn import Turn
from fllm_export.environment import BYTES_MAX, GPUS_MAX, positive_integer
from fllm_export.library_errors import translated
from fllm_export.link import Link
from fllm_export.table.layout import PREVIOUS_NAME


class CoreEngine:
    """A table that libfllm has open; it maps the files itself, and searches of many threads share passes.

    On GPUs, ``FLLM_GPUS`` is how many share the table (default: one) and ``FLLM_GPU_BYTES`` what each gives at most
    (default: what is free); rows beyond that stream from pinned memory of the host.

    Args:
        name: ``native`` or ``cuda``.
        directory: holds ``table.json``.
        threads: threads of one search; the engine ``cuda`` opens tables with them.
        resident: whether rows are read into memory of the process, on huge pages where the system gives them.
        pin_threads: whether each thread stays on one CPU.
        batch_window_us: microseconds that a pass waits for further searches to share it.
        part: number of the part of the table that is opened, and how many parts there are; None is the whole table.

    Raises:
        BudgetError: memory or threads do not suffice.
        BundleError: libfllm finds the table damaged.
        HardwareError: what the engine runs on is not available here.
        UsageError: the engine does not scan the table's codec, or the part holds no user.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        threads: int,
        *,
        resident: bool = False,
        pin_threads: bool = False,
        batch_window_us: int = 0,
        part: tuple[int, int] | None = None,
    ) -> None:
        self.name = name
        on_gpus = name == "cuda"
        number, parts = part or (0, 0)
        try:
            self._table = _core.Table.open(
                str(directory),
                threads=threads,
                pin_threads=pin_threads,
                resident=resident,
                batch_window_us=batch_window_us,
                engine=name,
                gpus=positive_integer("FLLM_GPUS", GPUS_MAX) or 0 if on_gpus else 0,
                gpu_bytes=positive_integer("FLLM_GPU_BYTES", BYTES_MAX) or 0 if on_gpus else 0,
                part=number,
                parts=parts,
            )
        except _core.Error as error:
            raise translated(error) from None
        self._directory = directory
        self._filters: weakref.WeakKeyDictionary[UserFilter, tuple[int, _core.Filter]] = weakref.WeakKeyDictionary()
        self._reopening = Turn()
        self._epoch = 0  # goes up before and after each reopening, so it is odd during one
        self._facts = self._opened()

    @property
    def facts(self) -> TableFacts:
        """What is open now."""
        return self._facts

    @property
    def isa(self) -> str:
        """Name of the instruction-set level that scans, or of the kind of GPU."""
        return str(self._table.describe()["isa"])

    def search(self, z: npt.NDArray[np.float32], request: Request) -> Answer:
        """Scan the table for a batch of item vectors, float32 [B, d]."""
        began = time.perf_counter()
        budget_ms = 0.0 if request.deadline is None else max(1e-6, (request.deadline - time.monotonic()) * 1e3)
        found = self._filtered(
            request.filter,
            np.ascontiguousarray(z),
            request.k,
            sample=request.mode == "sample",
            seeds=np.array(request.seeds, np.uint64) if request.mode == "sample" else None,
            exact=request.exact,
            log_probs=LOG_PROBS.index(request.log_probs),
            budget_ms=budget_ms,
            refine=request.refine,
            refined_scores=request.refined_scores,
        )
        ids, keys, scores, logsumexp, rows_scored, completed, log_probs_exact, error, certified, *facts = found
        generation, rows, refined_scores = facts
        complete = completed.astype(bool)
        return Answer(
            ids=ids,
            keys=keys,
            scores=scores,
            logsumexp=logsumexp,
            rows_scored=rows_scored.astype(np.int64),
            complete=complete,
            exact=complete & request.exact,
            log_probs_exact=log_probs_exact.astype(bool),
            log_prob_error=error,
            log_probs_certified=certified.astype(bool),
            rows=rows,
            generation=generation,
            scan_ms=(time.perf_counter() - began) * 1e3,
            merge_ms=0.0,
            refined_scores=refined_scores,
        )

    def reopen(self) -> None:
        """Let libfllm put the table that lies in the directory now in the place of the open one."""
        with self._reopening.lock():
            self._epoch += 1
            try:
                self._table.reopen()
                self._facts = self._opened()
            except _core.Error as error:
                raise translated(error) from None
            finally:
                self._epoch += 1

    def _opened(self) -> TableFacts:
        """Return what libfllm has open; warn where that is the generation before the newest."""
        found = self._table.describe()
        if found.get("recovered"):
            warnings.warn(
                f"{self._directory}: table.json cannot be read. Generation {found['generation']} is read from "
                f"{PREVIOUS_NAME} instead.",
                stacklevel=2,
            )
        finer = found["refinement"] or None
        link = Link(found["link_exponent"])
        return TableFacts(found["rows"], found["dim"], found["codec"], found["generation"], finer, link)

    def _filtered(self, requested: UserFilter | None, *arguments: Any, **options: Any) -> tuple[Any, ...]:
        """Search with a filter for the open table; again where the table was reopened after its filter was made."""
        while True:
            epoch = self._epoch
            try:
                return self._table.search(*arguments, **options, filter=self._filter(requested, epoch))
            except _core.Error as error:
                if requested is None or self._epoch == epoch:
                    raise translated(error) from None

    def _filter(self, requested: UserFilter | None, epoch: int) -> _core.Filter | None:
        """Return libfllm's form of a filter, made once per filter and open table."""
        if requested is None:
            return None
        made_in, made = self._filters.get(requested, (-1, None))
        if made is None or made_in != epoch:
            made = self._table.filter(requested.user_ids, deny=requested.deny)
            if epoch % 2 == 0:
                self._filters[requested] = (epoch, made)
        return made
