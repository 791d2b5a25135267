"""What a trained recommender hands over: one vector per user and per item, and a file of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from fllm_export import arguments
from fllm_export.checkpoint.tensors import open_tensors
from fllm_export.errors import BundleError, UsageError
from fllm_export.files import publish

Ids = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]

_FORMAT = "fllm-export recommender vectors"
_NAMES = ("user_ids", "users", "item_ids", "items")
_NPY, _NPZ = b"\x93NUMPY", b"PK\x03\x04"
"""How files of NumPy begin."""


@dataclass(frozen=True)
class Vectors:
    """Vectors of users and items in one space. The score of a pair is their inner product.

    Attributes:
        user_ids: each id once, of 0 or more, int64 [U].
        users: their vectors, float32 [U, d].
        item_ids: each id once, of 0 or more, int64 [I].
        items: their vectors, float32 [I, d].

    Raises:
        UsageError: an id occurs twice or is negative, shapes do not go together, or a number is not finite.
    """

    user_ids: Ids
    users: Rows
    item_ids: Ids
    items: Rows

    def __post_init__(self) -> None:
        users = arguments.numbers(self.users, "users")
        dim = users.shape[1] if users.ndim == 2 else 1
        for name in ("users", "items"):
            object.__setattr__(self, name, arguments.vectors(getattr(self, name), name, dim))
        for name, rows in (("user_ids", self.users), ("item_ids", self.items)):
            object.__setattr__(self, name, arguments.unique_ids(getattr(self, name), name, len(rows)))

    @property
    def dim(self) -> int:
        """Dimension d of the vectors."""
        return int(self.users.shape[1])

    @classmethod
    def load(cls, path: str | Path) -> Vectors:
        """Read a file that :meth:`save` wrote, or any safetensors file with the four tensors.

        Raises:
            BundleError: it is missing, of another format or damaged, a tensor is missing or has another shape, a number
                is not finite, or an id occurs twice.
        """
        file = arguments.path(path, "path")
        _refuse_arrays(file)
        tensors = open_tensors(file)
        missing = [name for name in _NAMES if name not in tensors]
        if missing:
            raise BundleError(f"{file} has no tensor {missing[0]!r}", expected="the tensors " + ", ".join(_NAMES))
        tensors["users"].expect((None, None))
        tensors["items"].expect((None, tensors["users"].shape[1]))
        for ids, rows in (("user_ids", "users"), ("item_ids", "items")):
            tensors[ids].expect((tensors[rows].shape[0],), ids=True)
        try:
            return cls(
                tensors["user_ids"].read_ids(),
                tensors["users"].read(),
                tensors["item_ids"].read_ids(),
                tensors["items"].read(),
            )
        except UsageError as error:
            raise BundleError(f"{file}: {error.found}", expected=error.expected, fix=error.fix) from error

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, all or nothing."""
        file = arguments.path(path, "path")
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _NAMES}
        with publish(file) as out:
            out.write(save(tensors, {"format": _FORMAT}))

    def user_places(self, ids: Any) -> Ids:
        """Return the rows of some users in :attr:`users`, int64 [n].

        Raises:
            UsageError: a user is unknown, which is named.
        """
        return _places(self.user_ids, self._user_order, arguments.ids(ids, "user_ids"), "user")

    def item_places(self, ids: Any) -> Ids:
        """Return the rows of some items in :attr:`items`, int64 [n].

        Raises:
            UsageError: an item is unknown, which is named.
        """
        return _places(self.item_ids, self._item_order, arguments.ids(ids, "item_ids"), "item")

    def has_items(self, ids: Any) -> npt.NDArray[np.bool_]:
        """Return whether each item is known, bool [n]."""
        wanted = arguments.ids(ids, "item_ids")
        known: npt.NDArray[np.bool_] = self.item_ids[_near(self.item_ids, self._item_order, wanted)] == wanted
        return known

    def with_items(self, ids: Any, rows: Any) -> Vectors:
        """Return a copy in which some items have these vectors; unknown items are added at the end.

        Args:
            ids: each once, int64 [n].
            rows: float32 [n, d].

        Raises:
            UsageError: an id occurs twice, or a vector has another dimension or is not finite.
        """
        found = arguments.vectors(rows, "rows (one per item)", self.dim)
        wanted = arguments.unique_ids(ids, "ids", len(found))
        known = self.has_items(wanted)
        items = self.items.copy()
        items[self.item_places(wanted[known])] = found[known]
        return replace(
            self,
            item_ids=np.concatenate([self.item_ids, wanted[~known]]),
            items=np.concatenate([items, found[~known]]),
        )

    @cached_property
    def _user_order(self) -> Ids:
        return np.argsort(self.user_ids)

    @cached_property
    def _item_order(self) -> Ids:
        return np.argsort(self.item_ids)


def _near(ids: Ids, order: Ids, wanted: Ids) -> Ids:
    """Return for each wanted id the row that has it, or any row where none has."""
    at = np.searchsorted(ids, wanted, sorter=order)
    return order[np.minimum(at, len(ids) - 1)]


def _places(ids: Ids, order: Ids, wanted: Ids, kind: str) -> Ids:
    found = _near(ids, order, wanted)
    unknown = ids[found] != wanted
    if unknown.any():
        raise UsageError(
            f"{kind} {wanted[int(np.argmax(unknown))]} is unknown", expected=f"one of the {len(ids):,} {kind}s"
        )
    return found


def _refuse_arrays(file: Path) -> None:
    """Say of a file of NumPy what it is, which safetensors could only call damaged."""
    if file.is_file():
        with file.open("rb") as data:
            begin = data.read(len(_NPY))
        if begin.startswith((_NPY, _NPZ)):
            raise BundleError(
                f"{file} is a file of NumPy, which names neither users nor items",
                expected="a safetensors file with the tensors " + ", ".join(_NAMES),
                fix="Make one by fllm_export.coldstart.Vectors(user_ids, users, item_ids, items).save(path)",
            )
