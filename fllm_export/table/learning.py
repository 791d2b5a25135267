"""Learning users: interactions change the histories of users, and rows are made of the new histories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BundleError, UsageError
from fllm_export.progress import Progress
from fllm_export.table.draft import Draft
from fllm_export.table.histories import UserHistories
from fllm_export.table.id_index import NO_ROW, IdIndex
from fllm_export.table.rounding import Rounding
from fllm_export.table.table import Table

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_ROW_BYTES_AT_ONCE = 64 << 20
_ITEM_BITS = 32


class Rule(Protocol):
    """From the items of users to their rows as a table stores them, before they are rounded to codes."""

    @property
    def dim(self) -> int:
        """Dimension of a row."""
        ...

    def rows(self, starts: I64, items: I32) -> F32:
        """Return rows float32 [U, dim] of users whose items, int32 [P], begin at ``starts``, int64 [U + 1]."""
        ...

    def bias(self, starts: I64) -> F32 | None:
        """Return the biases of the same users, float32 [U], or None where rows have none."""
        ...


@dataclass(frozen=True, eq=False)
class Pairs:
    """Interactions, grouped by user, each of them once.

    Attributes:
        users: ids, ascending, each once, int64 [U].
        starts: where the items of each begin, and at the end P: int64 [U + 1].
        items: positions of items, ascending within a user, int32 [P].
    """

    users: I64
    starts: I64
    items: I32

    @classmethod
    def of(cls, users: I64, items: I32) -> Pairs:
        """Group users, ids int64 [P], and positions of items, int32 [P], in any order; pairs that repeat count once."""
        order = np.lexsort((items, users))
        users, items = users[order], items[order]
        fresh = np.ones(len(users), np.bool_)
        fresh[1:] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
        users, items = users[fresh], items[fresh]
        first = np.flatnonzero(np.diff(users, prepend=users[:1] - 1))
        return cls(users[first], np.append(first, len(users)).astype(np.int64), items)


@dataclass
class LearningCounts:
    """Users that are new, have another row or are gone; interactions with and without effect."""

    appended: int = 0
    updated: int = 0
    deleted: int = 0
    interactions: int = 0
    without_effect: int = 0


class Learning:
    """Puts rows and histories of changed users into a draft.

    Args:
        table: as it is now.
        draft: of its next generation.
        index: finds rows of the table.
        rule: makes rows.
        rounding: how numbers become codes.

    Raises:
        UsageError: the rule makes rows of another dimension, or with biases where the table has none.
    """

    def __init__(self, table: Table, draft: Draft, index: IdIndex, rule: Rule, rounding: Rounding) -> None:
        if rule.dim != table.layout.item_dim:
            raise UsageError(
                f"the learner makes rows of dimension {rule.dim}", expected=f"{table.layout.item_dim}, as the table has"
            )
        self._table, self._draft, self._index, self._rule, self._rounding = table, draft, index, rule, rounding
        self.counts = LearningCounts()

    def take(self, pairs: Pairs, *, withdraw: bool, progress: Progress) -> None:
        """Learn or withdraw interactions.

        Raises:
            BundleError: a user has a history and no row.
            UsageError: there are no interactions, the row of a user was given, or no user would be left.
        """
        if not len(pairs.users):
            raise UsageError("no interactions were given", expected="at least one")
        step = max(1, _ROW_BYTES_AT_ONCE // (4 * self._rule.dim))
        stage = "withdraw" if withdraw else "learn"
        for first in range(0, len(pairs.users), step):
            last = min(first + step, len(pairs.users))
            begin, end = pairs.starts[first], pairs.starts[last]
            starts, items = pairs.starts[first : last + 1] - begin, pairs.items[begin:end]
            self._take_block(pairs.users[first:last], starts, items, withdraw=withdraw)
            progress(stage, last, len(pairs.users))
        if self._table.layout.rows + self.counts.appended <= self.counts.deleted:
            raise UsageError("no user would be left in the table", expected="a user that stays")

    def _take_block(self, users: I64, starts: I64, items: I32, *, withdraw: bool) -> None:
        known = self._draft.histories.before.of(users)
        old, given = _keys(known.starts, known.items), _keys(starts, items)
        kept, fresh = (old[~_among(old, given)], given[:0]) if withdraw else (old, given[~_among(given, old)])
        new = np.sort(np.concatenate([kept, fresh]))
        effect = abs(len(new) - len(old))
        self.counts.interactions += effect
        self.counts.without_effect += len(given) - effect
        sizes = np.bincount(new >> _ITEM_BITS, minlength=len(users))
        changed = np.flatnonzero(sizes != known.sizes)
        if not len(changed):
            return
        theirs = (sizes != known.sizes)[new >> _ITEM_BITS]
        now = (new[theirs] & ((1 << _ITEM_BITS) - 1)).astype(np.int32)
        begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[changed])])
        self._replace(UserHistories(users[changed], begins, now), known.sizes[changed])

    def _replace(self, now: UserHistories, sizes_before: I64) -> None:
        """Put the rows of some histories, and the histories, in the place of those before."""
        rows = self._index.rows(self._table, now.users)
        there = rows != NO_ROW
        self._check_origin(now.users, there, sizes_before > 0)
        left = now.sizes > 0
        self._draft.delete(rows[there])
        if left.any():
            # Users without items have no part in `items`: their starts alone are left out.
            starts = np.append(now.starts[:-1][left], now.starts[-1])
            made, bias = self._rule.rows(starts, now.items), self._rule.bias(starts)
            self._draft.add(self._draft.maker.encoded(made, now.users[left], bias, self._rounding))
        self._draft.histories.put(now.users, now.starts, now.items)
        self.counts.appended += int((~there).sum())
        self.counts.updated += int((there & left).sum())
        self.counts.deleted += int((~left).sum())

    def _check_origin(self, users: I64, there: npt.NDArray[np.bool_], learned: npt.NDArray[np.bool_]) -> None:
        given = there & ~learned
        if given.any():
            raise UsageError(
                f"the row of user {users[int(np.argmax(given))]} was not learned but given, so its items are unknown",
                expected="users whose rows were learned, or new users",
                fix="Delete the user first (users delete), and learn all of their interactions",
            )
        lost = learned & ~there
        if lost.any():
            raise BundleError(
                f"{self._table.directory}: user {users[int(np.argmax(lost))]} has a history and no row",
                expected="a row for every history",
                fix="Build the table again",
            )


def _keys(starts: I64, items: I32) -> I64:
    """Return one ascending integer per interaction: the number of the user, then the item."""
    numbers = np.repeat(np.arange(len(starts) - 1, dtype=np.int64), np.diff(starts))
    found: I64 = (numbers << _ITEM_BITS) | items
    return found


def _among(some: I64, others: I64) -> npt.NDArray[np.bool_]:
    """Return which of some ascending integers are among others that ascend."""
    if not len(others):
        return np.zeros(len(some), np.bool_)
    at = np.minimum(np.searchsorted(others, some), len(others) - 1)
    found: npt.NDArray[np.bool_] = others[at] == some
    return found
