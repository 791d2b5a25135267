"""``learner.safetensors``: what user rows were made of, so that users can be learned without training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save

from fllm_export.checkpoint.tensors import FloatArray, IdArray, StoredTensor, open_tensors
from fllm_export.errors import BundleError
from fllm_export.files import publish
from fllm_export.head_rule import CLOSED_TENSOR, HEAD_TENSORS, HeadRule
from fllm_export.rule_numbers import RuleNumbers

RULE_FILE = "learner.safetensors"

_TENSORS = ("item_ids", "contributions", "starts", "items")
_VECTORS = ("counts", "log_normalisers")
_DTYPES = {
    "item_ids": "I64",
    "starts": "I64",
    "items": "I32",
    "contributions": "F32",
    CLOSED_TENSOR: "F32",
} | HEAD_TENSORS


@dataclass(frozen=True, eq=False)
class UserRule:
    """The rule by which the checkpoint's rows were made, and the items that they were made of.

    e_u = pop_u^-c times the sum of C_i over the items of u, and b_u = beta log pop_u, with the pop_u items of u. Where
    the rows are those of a head, e_u is in the head's coordinates, and the row is made of it and of a fold-in.

    Attributes:
        item_ids: of the training items, int64 [T].
        contributions: C, what each item gives to the rows of its users, float32 [T, d].
        user_power: c.
        activity: beta; None where rows have no bias.
        starts: where the items of each user begin, in the order of the rows, int64 [U + 1], ascending from 0.
        items: positions of items, int32 [P], ascending within a user.
        head: the fixed part of the head; None where rows are in closed form.
    """

    item_ids: IdArray
    contributions: FloatArray
    user_power: float
    activity: float | None
    starts: IdArray
    items: npt.NDArray[np.int32]
    head: HeadRule | None = None

    @classmethod
    def load(cls, path: Path, users: int, dim: int, *, bias: bool) -> UserRule:
        """Map the file into memory.

        Args:
            path: the file.
            users: rows of the checkpoint.
            dim: of a row.
            bias: whether rows have a bias.

        Raises:
            BundleError: it is damaged, or is not of so many users of that dimension.
        """
        stored = dict(open_tensors(path))
        head = CLOSED_TENSOR in stored
        wanted = [*_TENSORS, *HEAD_TENSORS] if head else list(_TENSORS)
        if head:
            stored["contributions"] = stored.pop(CLOSED_TENSOR)
        if set(stored) != set(wanted):
            raise BundleError(f"{path} holds {', '.join(sorted(stored))}", expected=", ".join(wanted))
        width = None if head else dim
        shapes: dict[str, tuple[int | None, ...]] = {
            "item_ids": (None,),
            "contributions": (None, width),
            "starts": (users + 1,),
            "items": (None,),
        }
        if head:
            shapes |= {name: (None,) if name in _VECTORS else (None, None) for name in HEAD_TENSORS}
        for name, shape in shapes.items():
            stored[name].expect(shape, ids=_DTYPES[name] != "F32")
        mapped = {name: _mapped(tensor) for name, tensor in stored.items()}
        numbers = _numbers(path, head=head)
        part = None
        if numbers.strength is not None and numbers.scale is not None:
            tensors = {name: mapped.pop(name) for name in HEAD_TENSORS}
            part = HeadRule(**tensors, strength=numbers.strength, scale=numbers.scale)
        rule = cls(user_power=numbers.user_power, activity=numbers.activity, head=part, **mapped)
        rule._check(path, dim, bias=bias)
        return rule

    def _check(self, path: Path, dim: int, *, bias: bool) -> None:
        starts, items, count = self.starts, self.items, len(self.item_ids)
        whole = starts[0] == 0 and starts[-1] == len(items) and bool((np.diff(starts) >= 0).all())
        if not whole or len(self.contributions) != count or items.min() < 0 or items.max() >= count:
            raise BundleError(f"{path} does not fit together", expected="a row per item, and items of each user")
        problem = None if self.head is None else self.head.problem(count, self.contributions.shape[1], dim)
        if problem is not None:
            raise BundleError(f"{path}: {problem}", expected="the file that training wrote", fix="Train again")
        if bias != (self.activity is not None):
            raise BundleError(
                f"{path} has {'no' if self.activity is None else 'an'} activity",
                expected="one where the user rows have biases, and none where they have not",
            )

    def write(self, path: Path) -> None:
        """Publish the file."""
        with publish(path) as file:
            # One entry: safetensors writes several in an order that differs from run to run.
            file.write(save(self._tensors(), {"numbers": self.numbers.to_text()}))

    @property
    def numbers(self) -> RuleNumbers:
        """What the file holds besides the tensors."""
        if self.head is None:
            return RuleNumbers(self.user_power, self.activity)
        return RuleNumbers(self.user_power, self.activity, self.head.strength, self.head.scale)

    def _tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the tensors by the names that they have in the file."""
        found = {name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS}
        if self.head is not None:
            found[CLOSED_TENSOR] = found.pop("contributions")
            found |= {name: np.ascontiguousarray(getattr(self.head, name)) for name in HEAD_TENSORS}
        return found

    def fingerprint(self) -> str:
        """Return a SHA-256 of everything."""
        numbers: tuple[float | None, ...] = (self.user_power, self.activity)
        if self.head is not None:
            numbers += (self.head.strength, self.head.scale)
        digest = hashlib.sha256(repr(numbers).encode())
        for tensor in self._tensors().values():
            digest.update(tensor.data)
        return digest.hexdigest()


def _mapped(tensor: StoredTensor) -> Any:
    dtypes = {"F32": "<f4", "I64": "<i8", "I32": "<i4"}
    wanted = _DTYPES[tensor.name]
    if tensor.dtype != wanted:
        raise BundleError(f"{tensor} has the dtype {tensor.dtype}", expected=wanted)
    return np.memmap(tensor.file, dtypes[wanted], "r", tensor.offset, tensor.shape)


def _numbers(path: Path, *, head: bool) -> RuleNumbers:
    with safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get("numbers", "")
    try:
        return RuleNumbers.of_text(text, head=head)
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} has no numbers of a rule ({error!r})", fix="Train the checkpoint again") from error
