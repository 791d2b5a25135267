"""The user table as applications meet it: create, open, ask."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Answer, Engine, Request, UserFilter
from fllm_export.engines.names import LOG_PROBS, MODES, LogProbs, Mode
from fllm_export.engines.partial import NO_USER
from fllm_export.engines.registry import NativeOptions, Source, engine_name, open_engine
from fllm_export.environment import thread_count
from fllm_export.errors import UsageError
from fllm_export.runtime.topk import TopK
from fllm_export.table.options import TableChoices, TableOptions
from fllm_export.table.table import Table
from fllm_export.table.writer import TableWriter, write_table

Rows = npt.NDArray[np.float32]

_CHUNK_ROWS = 65_536


class UserTable:
    """Quantised user rows on disk and the engine that scans them. Safe to use from many threads at once."""

    def __init__(self, directory: Path, engine: Engine) -> None:
        self.directory = directory
        self._engine = engine

    @classmethod
    def create(
        cls,
        directory: str | Path,
        rows: npt.ArrayLike | Iterable[npt.ArrayLike],
        ids: npt.ArrayLike | None = None,
        *,
        bias: npt.ArrayLike | None = None,
        items: npt.ArrayLike | None = None,
        generation: int = 1,
        **options: Unpack[TableChoices],
    ) -> UserTable:
        """Write a table and open it.

        Args:
            directory: where the table goes; created when missing.
            rows: float32 [N, d], or an iterable of [n, d] chunks for tables larger than memory.
            ids: int64 [N], unique and not negative; 0 to N - 1 when not given.
            bias: float32 [N], added to the scores.
            items: float32 [n, d], some hundred item vectors like those that will be asked for. The sketch is made
                for them where they fill fewer directions than rows do; no exact answer depends on them.
            generation: version number of the table, at least 1; :func:`fllm_export.publish` counts on from the table
                that it replaces.
            **options: ``quant``, ``shard_bytes``, ``sketch`` and ``cluster``, as :class:`TableOptions` describes them.

        Raises:
            UsageError: the rows, ids, bias or items are unfit, or the directory holds a table already.
        """
        chunks = _chunks(rows)
        first = next(chunks, None)
        if first is None:
            raise UsageError("no rows were given", expected="at least one user")
        if first.ndim != 2:
            raise UsageError(f"rows have shape {list(first.shape)}", expected="[N, d]")
        id_array = None if ids is None else np.asarray(ids)
        bias_array = None if bias is None else np.asarray(bias)
        writer = TableWriter(
            Path(directory),
            TableOptions(**options),
            dim=first.shape[1],
            bias=bias is not None,
            items=items,
        )
        write_table(writer, _aligned(first, chunks, id_array, bias_array), generation=generation)
        return cls.open(directory)

    @classmethod
    def open(
        cls,
        directory: str | Path,
        *,
        engine: str | None = None,
        threads: int | None = None,
        head: str | Path | None = None,
        **native: Unpack[NativeOptions],
    ) -> UserTable:
        """Open a table in place; nothing is created, and nothing is read but headers unless a GPU takes the rows.

        Args:
            directory: holds ``table.json``.
            engine: a name of the table of engines (``native``, ``cuda``, ``tensorrt``, ``onnxruntime``, ``numpy``).
                When not given, the environment variable ``FLLM_ENGINE`` or else ``native``.
            threads: threads inside one call; when not given, ``FLLM_NUM_THREADS`` or else every CPU.
            head: the folder ``head`` of the table's bundle; only ``tensorrt`` and ``onnxruntime`` need it, and
                :meth:`Runtime.open` hands it in.
            **native: ``resident``, ``pin_threads`` and ``batch_window_us``, as :class:`NativeOptions` describes them.

        Raises:
            BundleError: the table is missing, damaged or of a newer format.
            HardwareError: the engine cannot run here.
            UsageError: there is no engine of that name, or it does not scan the table's codec.
        """
        folder = Path(directory)
        source = Source(folder, None if head is None else Path(head), thread_count(threads), native)
        return cls(folder, open_engine(engine_name(engine), source))

    def __len__(self) -> int:
        return self._engine.facts.rows

    @property
    def dim(self) -> int:
        """Dimension of a user row."""
        return self._engine.facts.dim

    @property
    def generation(self) -> int:
        """Version number of the table that is open now; an answer carries the one that it is from."""
        return self._engine.facts.generation

    @property
    def codec(self) -> str:
        """How a row is stored."""
        return self._engine.facts.codec

    @property
    def engine(self) -> str:
        """Name of the engine that scans."""
        return self._engine.name

    def decoded(self) -> Iterator[tuple[npt.NDArray[np.int64], Rows]]:
        """Yield ids int64 [n] and the float32 rows [n, d] that the codes stand for, in scan order.

        The directory is read as it is now, which may be newer than what the engine has open.
        """
        return Table(self.directory).decoded()

    def topk(
        self,
        z: npt.ArrayLike,
        k: int = 100,
        *,
        budget_ms: float | None = None,
        mode: Mode = "topk",
        seed: int | Sequence[int] = 0,
        exact: bool = True,
        log_probs: LogProbs | None = None,
        filter: UserFilter | None = None,
    ) -> TopK:
        """Return the best ``k`` users of each item vector.

        Args:
            z: item vectors, float32 [B, d] or [d].
            k: users per item, at most the table's rows.
            budget_ms: wall time for this call; no tile is begun after it, and at least one is always scored.
            mode: ``topk``, or ``sample`` for k users drawn without replacement from the distribution.
            seed: for ``sample``: the noise of a user depends on the seed and the user id alone, so one seed gives
                all items the same noise; a sequence gives each item its own.
            exact: whether the users must be provably the best of the quantised table. Otherwise a table with a sketch
                is scanned by the sketch's statistical bounds, which read less.
            log_probs: ``exact`` scores every row for the softmax denominator; ``estimate`` takes what the search reads
                anyway; ``none`` leaves log-probabilities out (NaN). When not given, ``exact`` if ``exact``, else
                ``estimate``.
            filter: the users that may be returned, from :meth:`filter`; probabilities stay those over all users.

        Raises:
            UsageError: an argument is unfit.
        """
        began = time.monotonic()
        vectors = self._check_vectors(z)
        request = self.request(len(vectors), k, budget_ms, mode, seed, began, exact, log_probs, filter)
        return self.answer(vectors, request)

    def filter(self, *, allow: npt.ArrayLike | None = None, deny: npt.ArrayLike | None = None) -> UserFilter:
        """Return a filter for :meth:`topk`: these users only, or all but these. Make it once and use it often.

        Raises:
            UsageError: not exactly one of the two is given, or it is no list of whole numbers.
        """
        if (allow is None) == (deny is None):
            raise UsageError("a filter was asked for", expected="either allow= or deny=")
        ids = np.asarray(deny if allow is None else allow)
        if ids.ndim != 1 or (ids.dtype.kind not in "iu" and ids.size):
            raise UsageError(f"the filter's user ids are {ids.dtype} {list(ids.shape)}", expected="whole numbers [n]")
        return UserFilter(np.unique(ids.astype(np.int64)), deny is not None)

    def reopen(self) -> None:
        """Open the directory again and go on with what lies there now; searches under way end on the old table.

        Raises:
            BundleError: the new table is damaged; the old one stays in use.
            UsageError: its rows have another dimension; the old one stays in use.
        """
        self._engine.reopen()

    def request(
        self,
        batch: int,
        k: int,
        budget_ms: float | None,
        mode: Mode,
        seed: int | Sequence[int],
        began: float,
        exact: bool = True,
        log_probs: LogProbs | None = None,
        filter: UserFilter | None = None,
    ) -> Request:
        """Check the arguments of :meth:`topk` for a batch and a budget that began at ``began`` (monotonic seconds).

        Raises:
            UsageError: an argument is unfit.
        """
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or not 1 <= k <= len(self):
            raise UsageError(f"k is {k!r}", expected=f"a whole number from 1 to {len(self)}, the users of this table")
        if mode not in MODES:
            raise UsageError(f"mode is {mode!r}", expected="one of " + ", ".join(MODES))
        if budget_ms is not None and not budget_ms > 0:
            raise UsageError(f"budget_ms is {budget_ms}", expected="a number of milliseconds above 0")
        seeds = (seed,) * batch if isinstance(seed, int) else tuple(seed)
        if len(seeds) != batch or not all(0 <= s < 1 << 64 for s in seeds):
            raise UsageError(f"seed is {seed!r}", expected=f"a whole number from 0 to 2^64 - 1, or {batch} of them")
        wanted = log_probs or ("exact" if exact else "estimate")
        if wanted not in LOG_PROBS:
            raise UsageError(f"log_probs is {log_probs!r}", expected="one of " + ", ".join(LOG_PROBS))
        if wanted == "exact" and not exact:
            raise UsageError("log_probs is 'exact' while exact is False", expected="'estimate' or 'none'")
        deadline = None if budget_ms is None else began + budget_ms / 1e3
        return Request(k, mode, seeds, deadline, exact, wanted, filter)

    def answer(self, z: Rows, request: Request) -> TopK:
        """Return the answer to a request of :meth:`request`; z is float32 [B, d]."""
        return _top_k(self._engine.search(z, request), request)

    def _check_vectors(self, z: npt.ArrayLike) -> Rows:
        vectors = np.atleast_2d(np.asarray(z, np.float32))
        if vectors.ndim != 2 or vectors.shape[1] != self.dim or len(vectors) == 0:
            raise UsageError(f"item vectors have shape {list(vectors.shape)}", expected=f"[B, {self.dim}], B >= 1")
        finite = np.isfinite(vectors).all(1)
        if not finite.all():
            row = int(np.argmin(finite))
            raise UsageError(f"item vector {row} (counted from 0) is not finite", expected="finite numbers")
        return vectors


def _top_k(answer: Answer, request: Request) -> TopK:
    missing = ((0, 0), (0, request.k - answer.ids.shape[1]))
    scores = np.pad(answer.scores, missing, constant_values=-np.inf)
    unknown = request.log_probs == "none"
    logsumexp = np.full(len(scores), np.nan) if unknown else answer.logsumexp
    return TopK(
        user_ids=np.pad(answer.ids, missing, constant_values=NO_USER),
        scores=scores,
        log_probs=(scores - logsumexp[:, None]).astype(np.float32),
        logsumexp=logsumexp.astype(np.float32),
        coverage=(answer.rows_scored / answer.rows).astype(np.float32),
        complete=answer.complete,
        exact=answer.exact,
        log_probs_exact=np.zeros(len(scores), np.bool_) if unknown else answer.log_probs_exact,
        generation=answer.generation,
        timings_ms={"scan": answer.scan_ms, "merge": answer.merge_ms},
    )


def _chunks(rows: npt.ArrayLike | Iterable[npt.ArrayLike]) -> Iterator[Rows]:
    if isinstance(rows, np.ndarray):
        if rows.ndim != 2:
            raise UsageError(f"rows have shape {list(rows.shape)}", expected="[N, d]")
        for start in range(0, len(rows), _CHUNK_ROWS):
            yield rows[start : start + _CHUNK_ROWS]
        return
    if not isinstance(rows, Iterable):
        raise UsageError(f"rows are a {type(rows).__name__}", expected="an array [N, d] or an iterable of chunks")
    for chunk in rows:
        yield np.asarray(chunk, np.float32)


def _aligned(
    first: Rows, rest: Iterator[Rows], ids: npt.NDArray[np.generic] | None, bias: npt.NDArray[np.generic] | None
) -> Iterator[tuple[Rows, npt.ArrayLike | None, npt.ArrayLike | None]]:
    """Give each chunk its part of ``ids`` and ``bias``, and check at the end that none is left over."""
    start = 0
    for chunk in itertools.chain([first], rest):
        window = slice(start, start + len(chunk))
        yield chunk, None if ids is None else ids[window], None if bias is None else bias[window]
        start += len(chunk)
    for name, array in (("ids", ids), ("bias", bias)):
        if array is not None and len(array) != start:
            raise UsageError(f"{len(array)} {name} for {start} rows", expected=f"{start}")
