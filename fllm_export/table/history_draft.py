"""The histories of the next generation of a table while it is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fllm_export.files import Later
from fllm_export.table.file_names import histories_name
from fllm_export.table.histories import I32, I64, Histories, UserHistories, write_histories
from fllm_export.table.layout import ShardEntry

MERGED_USERS = 65_536
"""A file that a change adds takes in the small ones before it as long as it has no more users than this."""


class HistoryDraft:
    """Changes to the histories of a table; they are written when the table's next layout is.

    Args:
        directory: of the table.
        entries: its files of histories as they are now.
    """

    def __init__(self, directory: Path, entries: tuple[ShardEntry, ...]) -> None:
        self._directory = directory
        self._base = entries
        self._kept = list(entries)
        self._new: list[UserHistories] = []
        self._known: Histories | None = None
        self._whole = False

    @property
    def before(self) -> Histories:
        """The histories that the table has now, mapped when they are needed first.

        Raises:
            BundleError: a file is missing or damaged.
        """
        if self._known is None:
            self._known = Histories.load(self._directory, self._base)
        return self._known

    @property
    def changes(self) -> bool:
        """Whether the draft differs from what it began with."""
        return bool(self._new) or (self._whole and len(self._base) > 1)

    def put(self, users: I64, starts: I64, items: I32) -> None:
        """Give some users, ascending ids that no other call has named, another history; an empty one is none."""
        if len(users):
            self._new.append(UserHistories(users, starts, items))

    def drop(self, ids: I64) -> None:
        """Forget the histories of users whose rows are deleted, or replaced by rows from elsewhere."""
        if not self._base:
            return
        users = np.sort(ids)
        users = users[self.before.sizes(users) > 0]
        self.put(users, np.zeros(len(users) + 1, np.int64), np.zeros(0, np.int32))

    def compact(self) -> None:
        """Let all files become one, without users that have no history any more."""
        self._whole = True

    def save(self, generation: int, token: str, later: Later) -> tuple[ShardEntry, ...]:
        """Write what has changed, to be synced later, and return the files of the next generation.

        Small files before the new one are taken into it, so that their number grows with the logarithm of the number
        of changes, as :meth:`fllm_export.table.draft.Draft.merge` does with rows.
        """
        if not self.changes:
            return self._base
        kept = [] if self._whole else self._small_ones_left_out()
        merged = Histories([*self._files(kept), *self._new])
        users = merged.users()
        sizes = merged.sizes(users)
        if not kept:  # nothing before it that an empty history would have to hide
            users, sizes = users[sizes > 0], sizes[sizes > 0]
        entry = write_histories(self._directory / histories_name(generation, token), merged, users, sizes, later)
        return (*kept, *(() if entry is None else (entry,)))

    def _small_ones_left_out(self) -> list[ShardEntry]:
        kept, users = list(self._base), sum(len(part.users) for part in self._new)
        while kept and kept[-1].rows <= users and kept[-1].rows + users <= MERGED_USERS:
            users += kept.pop().rows
        return kept

    def _files(self, kept: list[ShardEntry]) -> list[UserHistories]:
        return [UserHistories.load(self._directory, entry) for entry in self._base[len(kept) :]]
