"""The user table as applications meet it: create, open, ask."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from operator import index
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.directory_kinds import USER_TABLE, refuse_other_kind
from fllm_export.engines.base import Engine, Request, UserFilter
from fllm_export.engines.names import LOG_PROBS, MODES, LogProbs, Mode
from fllm_export.engines.registry import NativeOptions, Source, checked_options, engine_name, open_engine
from fllm_export.environment import thread_count
from fllm_export.errors import UsageError
from fllm_export.link import Link
from fllm_export.operating_point import OperatingPoint
from fllm_export.runtime.living_users import LivingUsers
from fllm_export.runtime.topk import TopK
from fllm_export.table.codec_names import REFINE_DEFAULT, REFINE_MAX
from fllm_export.table.layout import GENERATION_MAX, TableLayout
from fllm_export.table.options import TableChoices, TableOptions
from fllm_export.table.part import TablePart
from fllm_export.table.table import LabelledRows
from fllm_export.table.writer import Chunk, TableWriter, write_table

Rows = npt.NDArray[np.float32]
Array = npt.NDArray[np.generic]

_ITEMS, _ROWS = "z (item vectors)", "rows (one per user)"
"""What messages call the arguments."""
_ROWS_SHAPE = "a matrix [users, dimension]"
_CHUNK_ROWS = 65_536
_SEED_MAX = (1 << 64) - 1


class UserTable(LivingUsers):
    """Quantised user rows on disk and the engine that scans them. Safe to search from many threads at once."""

    def __init__(self, engine: Engine, source: Source, point: OperatingPoint | None = None) -> None:
        self.directory = source.directory
        self._point = point
        self._engine = engine
        self._source = source

    def __reduce__(self) -> tuple[Callable[..., UserTable], tuple[str, Source, OperatingPoint | None]]:
        """Pickle as path and options: who unpickles it opens what lies there then."""
        return _opened, (self.engine, self._source.absolute(), self._point)

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
            items: float32 [n, d], a few hundred item vectors like those of later queries. The sketch is made for them
                where they fill fewer directions than the rows do. No exact answer depends on them.
            generation: version number of the table, at least 1. :func:`fllm_export.publish` makes it at least one
                higher than that of the table that it replaces.
            **options: ``quant``, ``shard_bytes``, ``sketch``, ``cluster`` and ``refine``, as :class:`TableOptions`
                describes them.

        Raises:
            UsageError: the rows, ids, bias or items are invalid, or the directory already holds a table.
        """
        number = arguments.integer(generation, "generation", least=1, most=GENERATION_MAX)
        chunks = _chunks(rows)
        first = next(chunks, None)
        if first is None:
            raise UsageError("no rows were given", expected="at least one user")
        if first.ndim != 2:
            raise UsageError(f"{_ROWS} has the shape {list(first.shape)}", expected=_ROWS_SHAPE)
        id_array = None if ids is None else arguments.integers(ids, "ids")
        bias_array = None if bias is None else arguments.numbers(bias, "bias")
        writer = TableWriter(
            arguments.path(directory, "directory"),
            TableOptions(**options),
            dim=first.shape[1],
            bias=bias is not None,
            items=items,
        )
        try:
            write_table(writer, _aligned(first, chunks, id_array, bias_array), generation=number)
        except BaseException:
            writer.discard()
            raise
        return cls.open(directory)

    @classmethod
    def open(
        cls,
        directory: str | Path,
        *,
        engine: str | None = None,
        threads: int | None = None,
        head: str | Path | None = None,
        operating_point: OperatingPoint | str | Path | None = None,
        part: tuple[int, int] | None = None,
        **native: Unpack[NativeOptions],
    ) -> UserTable:
        """Open a table in place. Nothing is created, and only headers are read unless a GPU takes the rows.

        Args:
            directory: holds ``table.json``.
            engine: a name of the table of engines (``native``, ``cuda``, ``tensorrt``, ``onnxruntime``, ``numpy``).
                When not given, the environment variable ``FLLM_ENGINE`` or else ``native``.
            threads: threads inside one call; when not given, ``FLLM_NUM_THREADS`` or else every CPU.
            head: the folder ``head`` of the table's bundle; only ``tensorrt`` and ``onnxruntime`` need it, and
                :meth:`Runtime.open` passes it.
            operating_point: what a sweep picked, or its file: it sets the engine and the threads that are not given
                here, and what ``exact`` and ``log_probs`` are in calls that do not say.
            part: (i, n) opens the i-th of n contiguous parts of the table's shards, counted from 0, as one of several
                machines that share a table does. Answers are those of the part, and changes are those of the table.
            **native: ``resident``, ``pin_threads`` and ``batch_window_us``, as :class:`NativeOptions` describes them.

        Raises:
            BundleError: the table is missing, damaged or of a newer format.
            HardwareError: the engine cannot run here.
            UsageError: there is no engine of that name, it does not scan the table's codec, the operating point is
                that of another kind of table, or the part is invalid or holds no user.
        """
        point = None if operating_point is None else OperatingPoint.of(operating_point)
        if point is not None:
            engine = point.engine if engine is None else engine
            threads = point.threads if threads is None else threads
        place = arguments.path(directory, "directory")
        refuse_other_kind(place, USER_TABLE)
        source = Source(
            place,
            None if head is None else arguments.path(head, "head"),
            thread_count(threads),
            checked_options(native),
            None if part is None else _part(part),
        )
        return _opened(engine_name(engine), source, point)

    def __len__(self) -> int:
        return self._engine.facts.rows

    def __repr__(self) -> str:
        facts = self._engine.facts
        return f"<UserTable of {facts.rows:,} users x {facts.dim}, {facts.codec}, generation {facts.generation}>"

    @property
    def dim(self) -> int:
        """Dimension of an item vector, and of a user row."""
        return self._engine.facts.dim

    @property
    def refinement(self) -> str | None:
        """Codec of the refinement rows, or None where there are none."""
        return self._engine.facts.refinement

    @property
    def generation(self) -> int:
        """Version number of the table that is open now; an answer has that of the table that it is from."""
        return self._engine.facts.generation

    @property
    def codec(self) -> str:
        """How a row that is scanned is stored."""
        return self._engine.facts.codec

    @property
    def link(self) -> Link:
        """How scores become probabilities."""
        return self._engine.facts.link

    @property
    def engine(self) -> str:
        """Name of the engine that scans."""
        return self._engine.name

    def decoded(self) -> Iterator[tuple[npt.NDArray[np.int64], Rows]]:
        """Yield ids int64 [n] and the float32 rows [n, d] that the codes stand for, in scan order.

        The directory is read as it is now, which may be newer than what the engine has open.
        """
        return self._source.table().decoded()

    def labelled_chunks(self) -> Iterator[LabelledRows]:
        """Yield ids int64 [n], rows float32 [n, d] and biases float32 [n] (or None), otherwise as :meth:`decoded`."""
        return self._source.table().labelled_chunks()

    def topk(
        self,
        z: npt.ArrayLike,
        k: int = 100,
        *,
        budget_ms: float | None = None,
        mode: Mode = "topk",
        seed: int | Sequence[int] = 0,
        exact: bool | None = None,
        log_probs: LogProbs | None = None,
        filter: UserFilter | None = None,
        refine: int | None = None,
    ) -> TopK:
        """Return the best ``k`` users of each item vector.

        Args:
            z: item vectors, float32 [B, d] or [d].
            k: users per item, at most the table's rows.
            budget_ms: wall time for this call; no tile is begun after it, and at least one is always scored.
            mode: ``topk``, or ``sample`` for k users drawn without replacement from the distribution.
            seed: for ``sample``: the noise of a user depends on the seed and the user id alone, so one seed gives
                all items the same noise; a sequence gives each item its own.
            exact: whether the users must be provably the best of the quantised table, or those that the statistical
                bounds of its sketch find. When not given, that of the operating point, or else True.
            log_probs: ``exact``: every row counts. ``certified``: tiles that change no log-probability by more than
                0.001 are left out. ``estimate``: a sample. ``none``: NaN. ``log_prob_error`` of the answer bounds the
                error. When not given, that of the operating point, or else ``exact`` or ``estimate``, by ``exact``.
            filter: the users that can be returned, from :meth:`filter`; probabilities stay those over all users.
            refine: c, for tables with refinement rows: the c x k best users by the rows that are scanned are ranked
                again by their refinement rows, whose scores are returned. 0 takes the rows that are scanned alone. When
                not given, that of the operating point, or else 4 where there are refinement rows.

        Raises:
            UsageError: an argument is invalid, or ``refine`` is not 0 and the table has no refinement rows.
        """
        began = time.monotonic()
        given = arguments.numbers(z, _ITEMS)
        vectors = arguments.vectors(given[None] if given.ndim == 1 else given, _ITEMS, self.dim)
        request = self.request(len(vectors), k, budget_ms, mode, seed, began, exact, log_probs, filter, refine)
        return self.answer(vectors, request)

    def filter(self, *, allow: npt.ArrayLike | None = None, deny: npt.ArrayLike | None = None) -> UserFilter:
        """Return a filter for :meth:`topk`: only these users, or all except these. Make it once and use it often.

        Raises:
            UsageError: not exactly one of the two is given, or it is not integers [n].
        """
        if (allow is None) == (deny is None):
            raise UsageError("a filter needs one list of users", expected="either allow= or deny=")
        name, values = ("allow", allow) if deny is None else ("deny", deny)
        listed = list(values) if isinstance(values, Set) else values
        ids = np.sort(arguments.ids(listed, name, least=-1))
        return UserFilter(ids[np.diff(ids, prepend=ids[:1] - 1) != 0], deny is not None)

    def reopen(self) -> None:
        """Open again what is in the directory now. Running searches end on the old table.

        Raises:
            BundleError: the new table is damaged; the old one stays in use.
            UsageError: its rows have another dimension, or it has another link; the old one stays in use.
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
        exact: bool | None = None,
        log_probs: LogProbs | None = None,
        filter: UserFilter | None = None,
        refine: int | None = None,
    ) -> Request:
        """Check the arguments of :meth:`topk` for a batch and a budget that began at ``began`` (monotonic seconds).

        Raises:
            UsageError: an argument is invalid.
        """
        if arguments.integer(k, "k", least=1) > len(self):
            raise UsageError(f"k is {k}", expected=f"an integer from 1 to {len(self)}, the users of this table")
        proven, wanted = _search(exact, log_probs, self._point)
        if filter is not None and not isinstance(filter, UserFilter):
            raise UsageError(f"filter is a {type(filter).__name__}", expected="what UserTable.filter returns")
        return Request(
            k=index(k),
            mode=arguments.one_of(mode, "mode", MODES),
            seeds=_seeds(seed, batch),
            deadline=None if budget_ms is None else began + arguments.milliseconds(budget_ms, "budget_ms") / 1e3,
            exact=proven,
            log_probs=wanted,
            filter=filter,
            refine=self._candidates(refine),
        )

    def _candidates(self, refine: int | None) -> int:
        """Return the candidates per user wanted that are ranked again."""
        if refine is None:
            asked = REFINE_DEFAULT if self._point is None else self._point.candidates
            return 0 if self.refinement is None else asked
        number = arguments.integer(refine, "refine", least=0, most=REFINE_MAX)
        if number and self.refinement is None:
            raise UsageError(
                f"refine is {number}, and the table has no refinement rows",
                expected="0, or a table that was written with refine",
                fix="Omit refine, or write the table again with refine='int8'",
            )
        return number

    def answer(self, z: Rows, request: Request) -> TopK:
        """Return the answer to a request of :meth:`request`; z is float32 [B, d].

        Raises:
            BundleError: a row holds a number that is not finite, or a score is beyond float32's range.
        """
        return TopK.of(self._engine.search(z, request), request, self.link)


def _opened(engine: str, source: Source, point: OperatingPoint | None = None) -> UserTable:
    if point is not None:
        layout = TableLayout.load(source.directory)
        finer = "no" if layout.refinement is None else layout.refinement.codec
        found = {"quant": layout.codec, "dim": layout.dim, "cluster": layout.tile_bounds, "refine": finer}
        point.check_table(source.directory, **found, sketch=layout.sketch_dims > 0)
    return UserTable(open_engine(engine, source), source, point)


def _part(part: tuple[int, int]) -> tuple[int, int]:
    number, count = (arguments.integer(value, "part", least=0) for value in part)
    chosen = TablePart(number, count)
    return chosen.number, chosen.count


def _search(exact: bool | None, log_probs: LogProbs | None, point: OperatingPoint | None) -> tuple[bool, LogProbs]:
    """Return whether users must be proven, and the log-probs mode: what was given, or else what the point says."""
    if point is not None:
        exact = point.exact if exact is None else exact
        log_probs = cast(LogProbs, point.log_probs) if log_probs is None else log_probs
    proven = True if exact is None else arguments.flag(exact, "exact")
    wanted: LogProbs = "exact" if proven else "estimate"
    if log_probs is not None:
        wanted = arguments.one_of(log_probs, "log_probs", LOG_PROBS)
    if wanted in ("exact", "certified") and not proven:
        raise UsageError(f"log_probs is {wanted!r} while exact is False", expected="'estimate' or 'none'")
    return proven, wanted


def _seeds(seed: int | Sequence[int], batch: int) -> tuple[int, ...]:
    """Return a seed per item."""
    if isinstance(seed, int) or np.ndim(found := arguments.array(seed, "seed")) == 0:
        return (arguments.integer(seed, "seed", least=0, most=_SEED_MAX),) * batch
    if found.shape != (batch,):
        raise UsageError(f"seed has the shape {list(found.shape)}", expected=f"one integer, or {batch} of them")
    return tuple(arguments.integer(s, f"seed[{i}]", least=0, most=_SEED_MAX) for i, s in enumerate(found))


def _chunks(rows: npt.ArrayLike | Iterable[npt.ArrayLike]) -> Iterator[Array]:
    """Yield the rows of a matrix in parts, or the matrices of an iterable one by one."""
    if not isinstance(rows, Iterable) or isinstance(rows, str | bytes | Mapping | Set) or _is_matrix(rows):
        matrix = arguments.numbers(rows, _ROWS)
        if matrix.ndim != 2:
            raise UsageError(f"{_ROWS} has the shape {list(matrix.shape)}", expected=_ROWS_SHAPE)
        for start in range(0, len(matrix), _CHUNK_ROWS):
            yield matrix[start : start + _CHUNK_ROWS]
        return
    for chunk in rows:
        yield arguments.numbers(chunk, _ROWS)


def _is_matrix(rows: Any) -> bool:
    """Whether rows are one array, tensor or frame, or a list whose elements are single rows."""
    if hasattr(rows, "__array__"):
        return True
    return isinstance(rows, list | tuple) and len(rows) > 0 and arguments.array(rows[0], _ROWS).ndim < 2


def _aligned(first: Array, rest: Iterator[Array], ids: Array | None, bias: Array | None) -> Iterator[Chunk]:
    """Give each chunk its part of ``ids`` and ``bias``, and check at the end that none is left over."""
    start = 0
    for chunk in itertools.chain([first], rest):
        window = slice(start, start + len(chunk))
        yield chunk, None if ids is None else ids[window], None if bias is None else bias[window]
        start += len(chunk)
    for name, array in (("ids", ids), ("bias", bias)):
        if array is not None and len(array) != start:
            raise UsageError(f"{len(array)} {name} for {start} rows", expected=f"{start}")
