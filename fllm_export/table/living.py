"""Changing a table that readers have open: append, update, delete, compact (docs/guides/living_tables.md).

A change writes new files, then a new ``table.json`` by rename. A call that has returned is durable; a change that
fails or is cut off is not seen by any reader. There is one writer at a time, and any number of readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.errors import BundleError, FllmError, UsageError
from fllm_export.files import locked
from fllm_export.progress import Progress, silent
from fllm_export.system_errors import limit_error, path_error
from fllm_export.table.compaction import Compaction, remove_unfinished
from fllm_export.table.draft import Draft, remove_unused
from fllm_export.table.id_index import NO_ROW, IdIndex
from fllm_export.table.layout import TableLayout
from fllm_export.table.learning import Learning, Pairs, Rule
from fllm_export.table.rounding import Rounding, nearest
from fllm_export.table.table import Table

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Chunk = tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike | None]
"""Rows [n, d], their ids [n], and their biases [n] or None."""

LOCK_NAME = ".writer.lock"
COMPACTION_LOCK = ".compaction.lock"


@dataclass(frozen=True)
class RowMap:
    """What turns rows as they are given into rows as a table stores them.

    Attributes:
        dim: dimension of the rows that are given.
        rows: from float32 [n, dim] to float32 [n, the table's dimension].
    """

    dim: int
    rows: Callable[[F32], F32]


@dataclass(frozen=True)
class TableChange:
    """What a change has made of a table.

    Attributes:
        generation: of the table now; the one before where there was nothing to change.
        users: in the table now.
        appended: users that are new.
        updated: users whose row was replaced.
        deleted: users that are gone.
        shards: files of rows now.
        deleted_rows: rows that are still stored, and are marked as deleted.
    """

    generation: int
    users: int
    appended: int
    updated: int
    deleted: int
    shards: int
    deleted_rows: int


@dataclass(frozen=True)
class LearnedChange(TableChange):
    """What interactions have made of a table.

    Attributes:
        interactions: that were learned, or withdrawn.
        without_effect: that were learned before, or of those to be withdrawn were not learned.
    """

    interactions: int
    without_effect: int


class LivingTable:
    """The writer of a table. Every call takes the writer's lock, and reads what others have published since.

    Args:
        directory: holds ``table.json``.
        row_map: applied to rows that are given; None where they are given as they are to be stored.
        rounding: how numbers become codes.
        shard_bytes: size of a shard at most, the table's own where it is None; memory is bounded as in
            :class:`fllm_export.table.writer.TableWriter`.

    Raises:
        BundleError: the table is damaged or of a newer format.
    """

    def __init__(
        self,
        directory: Path,
        *,
        row_map: RowMap | None = None,
        rounding: Rounding = nearest,
        shard_bytes: int | None = None,
    ) -> None:
        self.directory = directory
        self._row_map = row_map
        self._rounding = rounding
        self._chosen_shard_bytes = shard_bytes
        self._index = IdIndex()
        self._table = Table(directory)

    def append(
        self, chunks: Iterable[Chunk], *, if_generation: int | None = None, progress: Progress = silent
    ) -> TableChange:
        """Add users that the table does not have, all of them in one step.

        Args:
            chunks: rows with ids and biases; a shard's worth is in memory at a time.
            if_generation: refuse unless the table is of this generation.
            progress: called with the rows that were taken in.

        Raises:
            BudgetError: no space is left, or another limit of the system is reached.
            BundleError: the table is damaged, or the system cannot write it.
            UsageError: a row, an id or a bias is invalid, an id is in the table already or twice in ``chunks``, there
                are no rows, another writer is at work, or the generation is another.
        """
        return self._put(chunks, if_generation, progress, new=True)

    def update(
        self, chunks: Iterable[Chunk], *, if_generation: int | None = None, progress: Progress = silent
    ) -> TableChange:
        """Replace the rows of users that the table has, all of them in one step; otherwise as :meth:`append`.

        Raises:
            UsageError: also where an id is not in the table.
        """
        return self._put(chunks, if_generation, progress, new=False)

    def delete(self, ids: npt.ArrayLike, *, if_generation: int | None = None) -> TableChange:
        """Remove users, all of them in one step. Their rows stay in the files until :meth:`compact`.

        Raises:
            BudgetError: as :meth:`append`.
            BundleError: as :meth:`append`.
            UsageError: an id is not in the table or occurs twice, no user would be left, another writer is at work, or
                the generation is another.
        """
        found = arguments.ids(ids, "ids")
        found = arguments.unique_ids(found, "ids", len(found))
        with self._drafted(if_generation) as draft:
            if len(found) >= self._table.layout.rows:
                raise UsageError(
                    f"{len(found)} users are to be deleted of {self._table.layout.rows}", expected="a user that stays"
                )
            draft.delete(self._found(found, "Leave it out"))
            draft.histories.drop(found)
        return self._change(deleted=len(found))

    def learn(
        self,
        pairs: Pairs,
        rule: Rule,
        *,
        withdraw: bool = False,
        if_generation: int | None = None,
        progress: Progress = silent,
    ) -> LearnedChange:
        """Make the rows of users from their items after some interactions were learned or withdrawn, in one step.

        An interaction counts once. What is learned already, or is to be withdrawn and was not learned, changes
        nothing, so that a call can be repeated. Users without items leave the table.

        Args:
            pairs: users and items.
            rule: from items to rows as the table stores them.
            withdraw: withdraw the interactions.
            if_generation: refuse unless the table is of this generation.
            progress: called with the users that were taken in.

        Raises:
            BudgetError: as :meth:`append`.
            BundleError: as :meth:`append`.
            UsageError: a user's row was not learned but given, no user would be left, another writer is at work, or
                the generation is another.
        """
        with self._drafted(if_generation) as draft:
            learning = Learning(self._table, draft, self._index, rule, self._rounding)
            learning.take(pairs, withdraw=withdraw, progress=progress)
            draft.merge()
        done = learning.counts
        change = self._change(appended=done.appended, updated=done.updated, deleted=done.deleted)
        return LearnedChange(**asdict(change), interactions=done.interactions, without_effect=done.without_effect)

    def compact(self, progress: Progress = silent) -> TableChange:
        """Rewrite the table without deleted rows, and with full shards, while readers and other changes go on.

        Only the publication holds the writer's lock. Rows that were changed meanwhile are taken over as they are then.
        Shards that are at least half full and have no deleted row stay as they are. The table's users and their rows
        do not change; nothing is written where nothing is to be gained.

        Raises:
            BudgetError: as :meth:`append`.
            BundleError: as :meth:`append`.
            UsageError: another compaction is at work.
        """
        busy = UsageError(
            f"{self.directory} is being compacted already", expected="one compaction at a time", fix="Let it end"
        )
        try:
            with locked(self.directory / COMPACTION_LOCK, busy):
                remove_unfinished(self.directory)
                self._table = Table(self.directory, before=self._table, fall_back=False)
                self._compacted(Compaction(self._table, self._shard_bytes), progress)
        except OSError as error:
            raise _refusal(error, self.directory, self._state(publishing=False)) from error
        return self._change()

    @property
    def _shard_bytes(self) -> int:
        return self._table.layout.shard_bytes if self._chosen_shard_bytes is None else self._chosen_shard_bytes

    def _compacted(self, compaction: Compaction, progress: Progress) -> None:
        try:
            compaction.write(progress)
            with self._drafted(None, wait=True) as draft:
                if compaction.sources:
                    draft.take(compaction)
                draft.histories.compact()
        finally:
            compaction.discard()

    def _put(self, chunks: Iterable[Chunk], if_generation: int | None, progress: Progress, *, new: bool) -> TableChange:
        seen: list[I64] = []
        with self._drafted(if_generation) as draft:
            dim = self._table.layout.item_dim if self._row_map is None else self._row_map.dim
            done = 0
            for given, numbers, offsets in chunks:
                rows = arguments.vectors(given, "rows (one per user)", dim)
                ids = arguments.unique_ids(numbers, "ids", len(rows))
                seen.append(ids)
                if new:
                    self._require_new(ids)
                else:
                    draft.delete(self._found(ids, "Use append for new users"))
                stored = rows if self._row_map is None else self._row_map.rows(rows)
                draft.add(draft.maker.encoded(stored, ids, _bias(offsets, len(rows)), self._rounding))
                done += len(rows)
                progress("append" if new else "update", done, done)
            if not seen:
                raise UsageError("no rows were given", expected="at least one user")
            together = np.concatenate(seen)
            arguments.unique_ids(together, "ids", len(together))
            draft.histories.drop(together)
            draft.merge()
        return self._change(appended=len(together)) if new else self._change(updated=len(together))

    @contextmanager
    def _drafted(self, if_generation: int | None, *, wait: bool = False) -> Iterator[Draft]:
        """Hold the writer's lock, let the block make a draft of the table as it is now, and publish it."""
        draft, publishing = None, False
        try:
            with self._lock(wait=wait):
                self._refresh(if_generation)
                draft, before = Draft(self._table, self._shard_bytes), self._table.layout
                yield draft
                if not draft.changes:
                    return
                draft.prepare()
                publishing = True
                draft.publish()
                self._table = Table(self.directory, before=self._table, fall_back=False)
                remove_unused(self._table, before)
        except BaseException as error:
            # Once publishing has begun, either layout may be the durable one: no file is removed.
            if draft is not None and not publishing:
                draft.discard()
            if isinstance(error, OSError):
                raise _refusal(error, self.directory, self._state(publishing=publishing)) from error
            raise

    def _state(self, *, publishing: bool) -> str:
        """Say what a change that failed has left, for the message."""
        try:
            changed = publishing and TableLayout.load(self.directory, fall_back=False) != self._table.layout
        except (FllmError, OSError):
            return "open it again to see whether the change was made"
        return "the change was made, and a power cut may undo it" if changed else "the table is unchanged"

    @contextmanager
    def _lock(self, *, wait: bool) -> Iterator[None]:
        busy = UsageError(
            f"{self.directory} is being changed by another writer",
            expected="one writer at a time",
            fix="Repeat the change when it has ended",
        )
        with locked(self.directory / LOCK_NAME, busy, wait=wait):
            yield

    def _refresh(self, if_generation: int | None) -> None:
        """Open the table as it is now; an unreadable ``table.json`` is not for a writer to pass over."""
        self._table = Table(self.directory, before=self._table, fall_back=False)
        generation = self._table.layout.generation
        if if_generation is not None and if_generation != generation:
            raise UsageError(
                f"{self.directory} is of generation {generation}",
                expected=f"{if_generation}, as if_generation says",
                fix="Open the table again, and decide again",
            )

    def _require_new(self, ids: I64) -> None:
        known = self._index.rows(self._table, ids) != NO_ROW
        if known.any():
            raise UsageError(
                f"user id {ids[int(np.argmax(known))]} is in the table already",
                expected="ids of new users",
                fix="Use update for users that the table has",
            )

    def _found(self, ids: I64, fix: str) -> I64:
        rows = self._index.rows(self._table, ids)
        missing = rows == NO_ROW
        if missing.any():
            raise UsageError(
                f"user id {ids[int(np.argmax(missing))]} is not in the table",
                expected="ids of users that the table has",
                fix=fix,
            )
        return rows

    def _change(self, *, appended: int = 0, updated: int = 0, deleted: int = 0) -> TableChange:
        layout = self._table.layout
        return TableChange(
            layout.generation,
            layout.rows,
            appended,
            updated,
            deleted,
            len(layout.shards),
            layout.stored_rows - layout.rows,
        )


def _bias(given: npt.ArrayLike | None, rows: int) -> F32 | None:
    if given is None:
        return None
    found = arguments.numbers(given, "bias")
    if found.shape != (rows,) or found.dtype.kind not in "fiu":
        raise UsageError(f"bias is {found.dtype} {list(found.shape)}", expected=f"numbers [{rows}], one per row")
    numbers = found.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise UsageError("bias has a number that is not finite", expected="finite numbers within float32's range")
    return numbers


def _refusal(error: OSError, directory: Path, state: str) -> FllmError:
    """Return what to raise where the system did not do as it was told."""
    known = limit_error(error, directory) or path_error(error)
    kind = BundleError if known is None else type(known)
    return kind(
        f"{error.filename or directory}: {error.strerror}; {state}",
        expected="a disk that takes and keeps what is written to it",
        fix="Check the disk" if known is None else known.fix,
    )
