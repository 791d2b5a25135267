"""``learner.safetensors``: what rows in closed form were made of, so that users can be learned without training."""

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
from fllm_export.rule_numbers import read_numbers, write_numbers

RULE_FILE = "learner.safetensors"

_TENSORS = ("item_ids", "contributions", "starts", "items")


@dataclass(frozen=True, eq=False)
class UserRule:
    """The rule by which the checkpoint's rows were made, and the items that they were made of.

    e_u = pop_u^-c times the sum of C_i over the items of u, and b_u = beta log pop_u, with the pop_u items of u.

    Attributes:
        item_ids: of the training items, int64 [T].
        contributions: C, what each item gives to the rows of its users, float32 [T, d].
        user_power: c.
        activity: beta; None where rows have no bias.
        starts: where the items of each user begin, in the order of the rows, int64 [U + 1], ascending from 0.
        items: positions of items, int32 [P], ascending within a user.
    """

    item_ids: IdArray
    contributions: FloatArray
    user_power: float
    activity: float | None
    starts: IdArray
    items: npt.NDArray[np.int32]

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
        stored = open_tensors(path)
        if set(stored) != set(_TENSORS):
            raise BundleError(f"{path} holds {', '.join(sorted(stored))}", expected=", ".join(_TENSORS))
        shapes = {"item_ids": (None,), "contributions": (None, dim), "starts": (users + 1,), "items": (None,)}
        for name, shape in shapes.items():
            stored[name].expect(shape, ids=name != "contributions")
        mapped = {name: _mapped(tensor) for name, tensor in stored.items()}
        power, activity = _numbers(path)
        rule = cls(user_power=power, activity=activity, **mapped)
        rule._check(path, bias=bias)
        return rule

    def _check(self, path: Path, *, bias: bool) -> None:
        starts, items, count = self.starts, self.items, len(self.item_ids)
        whole = starts[0] == 0 and starts[-1] == len(items) and bool((np.diff(starts) >= 0).all())
        if not whole or len(self.contributions) != count or items.min() < 0 or items.max() >= count:
            raise BundleError(f"{path} does not fit together", expected="a row per item, and items of each user")
        if bias != (self.activity is not None):
            raise BundleError(
                f"{path} has {'no' if self.activity is None else 'an'} activity",
                expected="one where the user rows have biases, and none where they have not",
            )

    def write(self, path: Path) -> None:
        """Publish the file."""
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS}
        with publish(path) as file:
            # One entry: safetensors writes several in an order that differs from run to run.
            file.write(save(tensors, {"numbers": write_numbers(self.user_power, self.activity)}))

    def fingerprint(self) -> str:
        """Return a SHA-256 of everything."""
        digest = hashlib.sha256(repr((self.user_power, self.activity)).encode())
        for name in _TENSORS:
            digest.update(np.ascontiguousarray(getattr(self, name)).data)
        return digest.hexdigest()


def _mapped(tensor: StoredTensor) -> Any:
    dtypes = {"F32": "<f4", "I64": "<i8", "I32": "<i4"}
    wanted = {"contributions": "F32", "items": "I32"}.get(tensor.name, "I64")
    if tensor.dtype != wanted:
        raise BundleError(f"{tensor} has the dtype {tensor.dtype}", expected=wanted)
    return np.memmap(tensor.file, dtypes[wanted], "r", tensor.offset, tensor.shape)


def _numbers(path: Path) -> tuple[float, float | None]:
    with safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get("numbers", "")
    try:
        return read_numbers(text)
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} has no numbers of a rule ({error!r})", fix="Train the checkpoint again") from error
