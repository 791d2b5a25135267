"""Histories: the items that the rows of learned users are made of, in files that ``table.json`` lists.

A row in closed form is a function of its user's set of items (:mod:`fllm_export.table.learner`), so the set is what a
change begins with: 4 bytes per interaction, where the exact sum of a row of d numbers would take 8 d bytes per user.
Of several files the last one that names a user holds the history; an empty history says that there is none any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BundleError
from fllm_export.files import Later, publish, sha256_file
from fllm_export.safetensors_layout import TensorFacts, lay_out
from fllm_export.table.layout import ShardEntry
from fllm_export.table.shard import PAGE_BYTES, checked_tensor, read_tensors

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_TENSORS = {"users": "I64", "starts": "I64", "items": "I32"}
_USERS_AT_ONCE = 1 << 18


@dataclass(frozen=True, eq=False)
class UserHistories:
    """The items of some users, in compressed rows.

    Attributes:
        users: user ids, ascending, each once, int64 [U].
        starts: where the items of each begin in ``items``, and at the end P: int64 [U + 1], ascending from 0.
        items: positions of items, ascending within a user, each once, int32 [P].
        source: names them in messages.
    """

    users: I64
    starts: I64
    items: I32
    source: str = "the histories"

    @property
    def sizes(self) -> I64:
        """Number of items of each user, int64 [U]."""
        return np.diff(self.starts)

    @classmethod
    def load(cls, directory: Path, entry: ShardEntry) -> UserHistories:
        """Map the file that ``table.json`` lists; its content is checked by :meth:`verify`.

        Raises:
            BundleError: it is missing, damaged, or not as ``table.json`` describes it.
        """
        path = directory / entry.name
        tensors = read_tensors(path)
        lengths = (entry.rows, entry.rows + 1, None)
        users, starts, items = (
            checked_tensor(path, tensors, name, dtype, (length,))
            for (name, dtype), length in zip(_TENSORS.items(), lengths, strict=True)
        )
        return cls(users.view(np.int64), starts.view(np.int64), items.view(np.int32), str(path))

    def verify(self) -> None:
        """Check every number.

        Raises:
            BundleError: ids or items do not ascend, or the starts are not those of the items.
        """
        begins = np.zeros(len(self.items) + 1, np.bool_)
        good = self.starts[0] == 0 and self.starts[-1] == len(self.items) and bool(np.all(self.sizes >= 0))
        if good:
            begins[self.starts] = True
            rising = (self.items[1:] > self.items[:-1]) | begins[1:-1]
            good = bool(np.all(rising)) and bool(np.all(self.users[1:] > self.users[:-1]))
        if not good or (len(self.users) and self.users[0] < 0) or (len(self.items) and self.items.min() < 0):
            raise BundleError(
                f"{self.source} holds users or items that do not ascend, or starts that are not theirs",
                expected="histories as they were written",
                fix="Copy the file again, or build the table again",
            )

    def gather(self, places: I64, out: I32, at: I64) -> None:
        """Copy the items of the users at some places, int64 [n], to where each begins in ``out``, int64 [n]."""
        begins, sizes = self.starts[places], self.sizes_at(places)
        if (begins < 0).any() or (sizes < 0).any() or (begins + sizes > len(self.items)).any():
            raise BundleError(f"{self.source} is damaged", expected="starts of its items", fix="Copy the file again")
        out[ragged(at, sizes)] = self.items[ragged(begins, sizes)]

    def sizes_at(self, places: I64) -> I64:
        """Return the number of items of the users at some places, int64 [n]."""
        sizes: I64 = self.starts[places + 1] - self.starts[places]
        return sizes


class Histories:
    """The histories of a table's users: of several files, the last one that names a user counts.

    Args:
        files: in the order of ``table.json``.
    """

    def __init__(self, files: Sequence[UserHistories]) -> None:
        self._files = list(files)

    @classmethod
    def load(cls, directory: Path, entries: Iterable[ShardEntry]) -> Histories:
        """Map the files of a table.

        Raises:
            BundleError: one is missing, damaged, or not as ``table.json`` describes it.
        """
        return cls([UserHistories.load(directory, entry) for entry in entries])

    def verify(self) -> None:
        """Check every number of every file.

        Raises:
            BundleError: naming the first file with a fault.
        """
        for file in self._files:
            file.verify()

    def of(self, users: I64) -> UserHistories:
        """Return the histories of some users, ids int64 [n] that ascend; users without one have no items."""
        owners, places = self._located(users)
        sizes = self._sizes_at(owners, places)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.maximum(sizes, 0))])
        items = np.empty(int(starts[-1]), np.int32)
        for number, file in enumerate(self._files):
            mine = owners == number
            file.gather(places[mine], items, starts[:-1][mine])
        return UserHistories(users, starts, items)

    def sizes(self, users: I64) -> I64:
        """Return the number of items of some users, int64 [n], 0 where there is no history."""
        return self._sizes_at(*self._located(users))

    def users(self) -> I64:
        """Return the ids that any file names, ascending, int64 [n]."""
        found: I64 = np.unique(np.concatenate([np.zeros(0, np.int64), *(file.users for file in self._files)]))
        return found

    def _sizes_at(self, owners: I64, places: I64) -> I64:
        sizes = np.zeros(len(owners), np.int64)
        for number, file in enumerate(self._files):
            mine = owners == number
            sizes[mine] = file.sizes_at(places[mine])
        return sizes

    def _located(self, users: I64) -> tuple[I64, I64]:
        """Return for each user the number of the file that counts, or -1, and the place there."""
        owners, places = np.full(len(users), -1, np.int64), np.zeros(len(users), np.int64)
        for number in range(len(self._files) - 1, -1, -1):
            file = self._files[number]
            open_ones = np.flatnonzero(owners < 0)
            if not len(file.users) or not len(open_ones):
                continue
            at = np.minimum(np.searchsorted(file.users, users[open_ones]), len(file.users) - 1)
            known = file.users[at] == users[open_ones]
            owners[open_ones[known]] = number
            places[open_ones[known]] = at[known]
        return owners, places


def write_histories(
    path: Path, histories: Histories, users: I64, sizes: I64, later: Later | None = None
) -> ShardEntry | None:
    """Publish a file of the histories of some users, and return its entry; no file where there are no users.

    Args:
        path: of a name that no file has had.
        histories: where the items are read, a few users at a time.
        users: ids, int64 [U], ascending.
        sizes: of their histories, int64 [U].
        later: where the sync is put off to.
    """
    if not len(users):
        return None
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    count = int(starts[-1])
    facts = {
        "users": TensorFacts("I64", users.shape, users.nbytes),
        "starts": TensorFacts("I64", starts.shape, starts.nbytes),
        "items": TensorFacts("I32", (count,), 4 * count),
    }
    layout = lay_out(facts, page_bytes=PAGE_BYTES, metadata={"format": "fllm-histories"})
    with publish(path, later) as file:
        file.write(layout.header)
        for name, array in (("users", users), ("starts", starts)):
            file.write(np.ascontiguousarray(array).data)
            file.write(bytes(layout.gaps[name]))
        for part in _parts(users):
            file.write(histories.of(part).items.data)
    return ShardEntry(path.name, len(users), layout.size, sha256_file(path))


def _parts(users: I64) -> Iterator[I64]:
    for first in range(0, len(users), _USERS_AT_ONCE):
        yield users[first : first + _USERS_AT_ONCE]


def ragged(begins: I64, sizes: I64) -> I64:
    """Return begins[0], begins[0] + 1, ... for sizes[0] numbers, then those of begins[1], and so on."""
    before = np.cumsum(sizes) - sizes
    found: I64 = np.repeat(begins - before, sizes) + np.arange(int(sizes.sum()))
    return found
