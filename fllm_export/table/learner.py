"""The rule by which users' rows are learned without training: a row in closed form is made of the user's items.

    e_u = pop_u^-c  sum over the items i of u of C_i            b_u = beta log pop_u

C_i is what item i gives to the rows of its users, n_i^-r M phi(x_i) as training computed it, times the scale of the
logits and the transform of the table: it has the dimension of a stored row (:mod:`fllm_export.training.closed_form`).

C is rounded to multiples of a power of two, fine enough that nothing of it is lost that float32 would hold beside the
largest number. Sums in float64 are then exact, so a row depends on the set of items alone: not on their order, and not
on what else was learned and withdrawn in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BundleError, UsageError
from fllm_export.files import publish
from fllm_export.rule_numbers import RuleNumbers
from fllm_export.safetensors_layout import TensorFacts, lay_out
from fllm_export.strict_json import parse
from fllm_export.table import native
from fllm_export.table.shard import PAGE_BYTES, Array, read_tensors

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

STEP_BITS = 37
"""C is rounded to 2^-37 of the power of two above its largest number: 2^16 = 65,536 items can be added exactly."""

_BLOCK_NUMBERS, _BLOCK_ITEMS = 1 << 22, 4096
_TENSORS = {"item_ids": "I64", "contributions": "F32"}


@dataclass(frozen=True, eq=False)
class Learner:
    """Makes the rows of users from their items.

    Attributes:
        item_ids: int64 [T], each once; items are known by their position in here.
        contributions: C, float32 [T, d], on the grid (:meth:`of`).
        user_power: c, from 0 to 1.
        activity: beta; None where rows have no bias.
    """

    item_ids: I64
    contributions: F32
    user_power: float
    activity: float | None

    @classmethod
    def of(
        cls, item_ids: I64, contributions: npt.NDArray[np.floating], power: float, activity: float | None
    ) -> Learner:
        """Return a learner with contributions [T, d] rounded to the grid.

        Raises:
            UsageError: the contributions are not finite or all zero, or not one per item.
        """
        largest = max(float(contributions.max(initial=0)), -float(contributions.min(initial=0)))
        if contributions.ndim != 2 or len(contributions) != len(item_ids) or not 0 < largest < np.inf:
            raise UsageError(
                f"contributions {list(contributions.shape)} have the largest number {largest}",
                expected=f"finite numbers [{len(item_ids)}, d], not all zero",
            )
        step = np.ldexp(1.0, int(np.frexp(largest)[1]) - STEP_BITS)
        found = contributions.astype(np.float32)
        for first in range(0, len(found), _BLOCK_ITEMS):
            # Of a number that the grid would hold in more bits, float32 keeps a multiple of a larger step.
            part = found[first : first + _BLOCK_ITEMS]
            part[:] = np.rint(part.astype(np.float64) / step) * step
        return cls(item_ids, found, power, activity)

    @property
    def dim(self) -> int:
        """Dimension d of a row."""
        return int(self.contributions.shape[1])

    def positions(self, item_ids: I64) -> I32:
        """Return the position of each item, int32 [n].

        Raises:
            UsageError: an item is not one of those that the table learned with; it is named.
        """
        ascending, order = self._ascending
        at = order[np.minimum(np.searchsorted(ascending, item_ids), len(order) - 1)]
        known = self.item_ids[at] == item_ids
        if not known.all():
            raise UsageError(
                f"item id {item_ids[int(np.argmin(known))]} is not one of the {len(self.item_ids):,} training items",
                expected="interactions with items that the model was trained on",
                fix="Leave these interactions out, or train again with the item",
            )
        return at.astype(np.int32)

    @cached_property
    def _ascending(self) -> tuple[I64, I64]:
        order = np.argsort(self.item_ids, kind="stable")
        return self.item_ids[order], order

    def rows(self, starts: I64, items: I32) -> F32:
        """Return e_u, float32 [U, d]: sums and factors in float64, rounded once.

        Args:
            starts: where the items of each user begin, int64 [U + 1], ascending from 0; each has at least one.
            items: their positions, int32 [P].

        Raises:
            BundleError: a position is that of no item, as in a history of another learner.
        """
        self._check_positions(items)
        factors = self._factors(starts)
        if native.takes(self.contributions):
            return native.user_rows(self.contributions, items, starts, factors)
        return self.exact_rows(starts, items).astype(np.float32)

    def exact_rows(self, starts: I64, items: I32) -> F64:
        """Return e_u in float64 [U, d], of the same arguments: what :meth:`rows` rounds.

        Raises:
            BundleError: as :meth:`rows`.
        """
        self._check_positions(items)
        found, factors = np.empty((len(starts) - 1, self.dim)), self._factors(starts)
        first = 0
        while first < len(found):
            # Users whose items fit a block, at least one.
            room = starts[first] + max(1, _BLOCK_NUMBERS // self.dim)
            last = max(first + 1, int(np.searchsorted(starts, room, side="right")) - 1)
            part = self.contributions[items[starts[first] : starts[last]]].astype(np.float64)
            found[first:last] = np.add.reduceat(part, starts[first:last] - starts[first], axis=0)
            first = last
        found *= factors[:, None]
        return found

    def bias(self, starts: I64) -> F32 | None:
        """Return b_u, float32 [U], or None where rows have none."""
        if self.activity is None:
            return None
        activity = self.activity
        return _by_size(starts, lambda size: activity * math.log(size)).astype(np.float32)

    def _check_positions(self, items: I32) -> None:
        count = len(self.item_ids)
        outside = items[(items < 0) | (items >= count)]
        if len(outside):
            raise BundleError(
                f"the history of a user has item number {outside[0]}",
                expected=f"numbers below {count}, the items of the learner",
                fix="Build the bundle again: its table and its learner do not belong together",
            )

    def _factors(self, starts: I64) -> F64:
        return _by_size(starts, lambda size: math.pow(size, -self.user_power))

    def save(self, path: Path) -> None:
        """Publish the learner as a safetensors file whose numbers are in its metadata."""
        arrays: dict[str, Array] = {"item_ids": self.item_ids, "contributions": self.contributions}
        write_rule(path, arrays, RuleNumbers(self.user_power, self.activity))

    @classmethod
    def load(cls, path: Path) -> Learner:
        """Map what :meth:`save` wrote.

        Raises:
            BundleError: the file is missing or damaged.
        """
        (ids, vectors), numbers = read_rule(path, _TENSORS, head=False)
        learner = cls(ids.view(np.int64), vectors.view(np.float32), numbers.user_power, numbers.activity)
        learner.check(path, "contributions")
        return learner

    def check(self, path: Path, name: str) -> None:
        """Check what was mapped from a file; every number is read.

        Args:
            path: the file.
            name: of the contributions in it.

        Raises:
            BundleError: the shapes do not fit together, an item occurs twice, or a contribution is not finite.
        """
        ids, vectors = self.item_ids, self.contributions
        if ids.ndim != 1 or vectors.ndim != 2 or len(ids) != len(vectors) or not vectors.size:
            raise damaged_rule(path)
        ascending, _ = self._ascending
        repeated = ascending[1:][ascending[1:] == ascending[:-1]]
        if len(repeated):
            raise damaged_rule(path, f"item id {repeated[0]} occurs twice")
        for first in range(0, len(vectors), _BLOCK_ITEMS):
            if not np.isfinite(vectors[first : first + _BLOCK_ITEMS]).all():
                raise damaged_rule(path, f"{name} has a number that is not finite")


def write_rule(path: Path, arrays: Mapping[str, Array], numbers: RuleNumbers) -> None:
    """Publish tensors and numbers of a rule as a safetensors file whose numbers are in its metadata."""
    names = {np.dtype(np.int64): "I64", np.dtype(np.float32): "F32"}
    facts = {name: TensorFacts(names[array.dtype], array.shape, array.nbytes) for name, array in arrays.items()}
    metadata = {"format": "fllm-learner", "numbers": numbers.to_text()}
    layout = lay_out(facts, page_bytes=PAGE_BYTES, metadata=metadata)
    with publish(path) as file:
        file.write(layout.header)
        for name, array in arrays.items():
            file.write(np.ascontiguousarray(array).data)
            file.write(bytes(layout.gaps[name]))


def read_rule(path: Path, dtypes: Mapping[str, str], *, head: bool) -> tuple[list[Array], RuleNumbers]:
    """Map the tensors of such a file, in the order of their names and dtypes, and read its numbers.

    Raises:
        BundleError: the file is missing or damaged.
    """
    tensors = read_tensors(path)
    if {name: dtype for name, (dtype, _) in tensors.items() if name in dtypes} != dtypes:
        raise damaged_rule(path)
    with path.open("rb") as file:
        header = parse(file.read(int.from_bytes(file.read(8), "little")))
    try:
        numbers = RuleNumbers.of_text(header["__metadata__"]["numbers"], head=head)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged_rule(path) from error
    return [tensors[name][1] for name in dtypes], numbers


def damaged_rule(path: Path, found: str = "") -> BundleError:
    """Return the refusal of a file that is not a rule."""
    more = f": {found}" if found else ""
    return BundleError(f"{path} is not a learner{more}", expected="the file that the build wrote", fix="Build again")


def _by_size(starts: I64, function: Callable[[int], float]) -> F64:
    """Return a function of each user's number of items, float64 [U].

    It is computed number by number: NumPy's loops round the last bit of a power as the processor's vectors do.
    """
    sizes, places = np.unique(np.diff(starts), return_inverse=True)
    values: F64 = np.array([function(size) for size in sizes.tolist()], np.float64)[places]
    return values
