"""Who liked what, grouped by user, for any number of pairs.

A file whose users ascend is read as it is. Any other is first cut into parts by ranges of users, files on disk that fit
into memory one at a time; a part is sorted when it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from fllm_export import arguments
from fllm_export.errors import BundleError, UsageError
from fllm_export.files import publish
from fllm_export.pair_files import Ids, PairSource
from fllm_export.progress import Progress, silent
from fllm_export.training.user_parts import UserParts
from fllm_export.training.user_sums import Positions, UserItems

_SURVEY = "survey.safetensors"
_BLOCK_PAIRS = 1 << 20
_TABLE_IDS = 1 << 26


@dataclass(frozen=True, eq=False)
class UserBlock:
    """Some users with all their items.

    Attributes:
        ids: user ids, ascending, int64 [U].
        users: the items of each, by position, ascending within a user.
    """

    ids: Ids
    users: UserItems


class Interactions:
    """The pairs of a source, grouped by user in ascending order; a pair that repeats counts once.

    Opening reads the pairs once (three times where users do not ascend: to choose the ranges, to cut and to count).
    What it found is kept in ``workspace``, so that an interrupted run does not read them again.

    Args:
        source: the pairs.
        item_ids: the id of each item, int64 [I], each once, in any order.
        workspace: a directory for the parts and the counts; the caller removes it.
        progress: counts pairs.

    Attributes:
        items: which of ``item_ids`` have a user, ascending positions, int64 [T]. Blocks number items by their place
            in here.
        counts: users of each of these, int64 [T].
        users: number of users.
        pairs: number of distinct pairs.

    Raises:
        UsageError: an item id occurs twice, or there is no pair.
        BundleError: a pair has an item that is not among the items, or a negative user id.
    """

    def __init__(
        self, source: PairSource, item_ids: npt.ArrayLike, workspace: Path, progress: Progress = silent
    ) -> None:
        ids = arguments.ids(item_ids, "item_ids")
        self._source, self._workspace = source, workspace
        self._places = _Places(arguments.unique_ids(ids, "item_ids", len(ids)))
        digest = hashlib.sha256(ids.tobytes())
        digest.update(source.identity().encode())
        self.key = digest.hexdigest()
        self._parts: UserParts | None = None
        survey = self._kept_survey()
        if survey is None:
            survey = self._survey(progress)
            with publish(workspace / _SURVEY) as file:
                file.write(save(survey, {"key": self.key}))
        all_counts, (self.users, in_parts) = survey["counts"], survey["facts"].tolist()
        if in_parts:
            self._parts = UserParts.open(workspace, self.key)
        self.items: Positions = np.flatnonzero(all_counts)
        self.counts: Positions = all_counts[self.items]
        self.pairs = int(all_counts.sum())
        if not self.pairs:
            raise UsageError(f"{source.name} holds no pair", expected="at least one")
        self._renumbered = np.full(len(all_counts), -1, np.int64)
        self._renumbered[self.items] = np.arange(len(self.items))

    def blocks(self, skip: int = 0) -> Iterator[UserBlock]:
        """Yield all users in ascending order after the first ``skip``, about a million pairs (or a part) at a time."""
        done = 0
        for block in self._grouped():
            first = min(max(skip - done, 0), len(block.ids))
            done += len(block.ids)
            if first < len(block.ids):
                users = block.users.part(first, len(block.ids))
                yield UserBlock(block.ids[first:], UserItems(self._renumbered[users.items], users.starts))

    def sample(self, most: int, seed: int) -> UserBlock:
        """Return about ``most`` users (all where there are fewer), drawn uniformly at random in one pass."""
        generator = np.random.default_rng(seed)
        chance = min(1.0, most / self.users)
        ids, sizes, items = [], [], []
        for block in self.blocks():
            drawn = np.flatnonzero(generator.random(len(block.ids)) < chance)
            part = block.users.chosen(drawn)
            ids.append(block.ids[drawn])
            sizes.append(part.sizes)
            items.append(part.items)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(sizes))])
        return UserBlock(np.concatenate(ids), UserItems(np.concatenate(items), starts))

    def _grouped(self) -> Iterator[UserBlock]:
        if self._parts is not None:
            for users, items in self._parts:
                yield _group(users, items, len(self._places))
            return
        yield from self._in_order()

    def _in_order(self) -> Iterator[UserBlock]:
        """Yield the blocks of a source whose users ascend.

        Raises:
            _NotInOrder: they do not.
        """
        held: list[tuple[Ids, Positions]] = []
        size, last = 0, -1
        for users, items in self._located():
            if not len(users):
                continue
            if users[0] < last or (users[1:] < users[:-1]).any():
                raise _NotInOrder
            last = int(users[-1])
            held.append((users, items))
            size += len(users)
            if size >= _BLOCK_PAIRS and held[0][0][0] != last:
                # The last user may go on in the next batch.
                users, items = _joined(held)
                begins = int(np.searchsorted(users, last))
                yield _group(users[:begins], items[:begins], len(self._places))
                held, size = [(users[begins:], items[begins:])], len(users) - begins
        if held:
            yield _group(*_joined(held), len(self._places))

    def _located(self) -> Iterator[tuple[Ids, Positions]]:
        for users, items in self._source.batches():
            if len(users) and int(users.min()) < 0:
                raise BundleError(f"{self._source.name} has the user id {users.min()}", expected="ids of 0 or more")
            yield users, self._places.of(items, self._source.name)

    def _survey(self, progress: Progress) -> dict[str, npt.NDArray[np.int64]]:
        self._workspace.mkdir(parents=True, exist_ok=True)
        try:
            return self._count(progress, in_parts=False)
        except _NotInOrder:
            self._parts = UserParts.cut(self._source, self._located, self._workspace, self.key, progress)
            return self._count(progress, in_parts=True)

    def _count(self, progress: Progress, *, in_parts: bool) -> dict[str, npt.NDArray[np.int64]]:
        counts, users, done = np.zeros(len(self._places), np.int64), 0, 0
        for block in self._grouped():
            counts += np.bincount(block.users.items, minlength=len(counts))
            users += len(block.ids)
            done += len(block.users.items)
            progress("counting interactions", done, max(done, self._source.pairs))
        return {"counts": counts, "facts": np.array([users, int(in_parts)], np.int64)}

    def _kept_survey(self) -> dict[str, npt.NDArray[np.int64]] | None:
        """Return the counts that an interrupted run of the same pairs has left."""
        from safetensors import SafetensorError, safe_open

        path = self._workspace / _SURVEY
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                same = (file.metadata() or {}).get("key") == self.key
        except SafetensorError as error:
            raise BundleError(f"{path} is damaged ({error})", fix=f"Delete {self._workspace}") from error
        return load_file(path) if same else None


class _NotInOrder(Exception):
    """The users of a source do not ascend."""


class _Places:
    """From an item's id to its position."""

    def __init__(self, ids: Ids) -> None:
        self._count = len(ids)
        self._order = np.argsort(ids, kind="stable")
        self._ids = ids[self._order]
        # Where ids are small, one look into a table is several times faster than a binary search.
        self._table: npt.NDArray[np.int64] | None = None
        if len(ids) and int(self._ids[-1]) < max(_TABLE_IDS, 4 * len(ids)):
            self._table = np.full(int(self._ids[-1]) + 1, -1, np.int64)
            self._table[ids] = np.arange(len(ids))

    def __len__(self) -> int:
        return self._count

    def of(self, wanted: Ids, name: str) -> Positions:
        """Return the positions of some ids, int64 [n]."""
        if not self._count or not len(wanted):
            known = np.zeros(len(wanted), bool)
            found = np.zeros(0, np.int64)
        elif self._table is not None:
            inside = (wanted >= 0) & (wanted < len(self._table))
            found = self._table[np.where(inside, wanted, 0)]
            known = inside & (found >= 0)
        else:
            at = np.minimum(np.searchsorted(self._ids, wanted), self._count - 1)
            known, found = self._ids[at] == wanted, self._order[at]
        if not known.all():
            raise BundleError(
                f"{name} has a pair with item_id {wanted[int(np.argmin(known))]}",
                expected="only items that have a vector",
                fix="Leave those pairs out, or give all items",
            )
        return found


def _joined(parts: list[tuple[Ids, Positions]]) -> tuple[Ids, Positions]:
    return np.concatenate([users for users, _ in parts]), np.concatenate([items for _, items in parts])


def _group(users: Ids, items: Positions, count: int) -> UserBlock:
    """Return pairs by user, each pair once; ``count`` is the number of items."""
    low = int(users.min())
    names: Ids | None = None
    numbers = users - low
    if (int(numbers.max()) + 1) * count >= 1 << 63:
        names, numbers = np.unique(users, return_inverse=True)
    # One sort of one integer per pair groups by user and finds what repeats.
    keys = np.sort(numbers * count + items)
    fresh = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=fresh[1:])
    if not fresh.all():
        keys = keys[fresh]
    owners = keys // count
    first = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
    ids = owners[first] + low if names is None else names[owners[first]]
    starts = np.append(first, len(keys)).astype(np.int64)
    return UserBlock(ids, UserItems(keys - owners * count, starts))
