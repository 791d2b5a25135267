"""Reading tensors out of safetensors files by slices, as float32 or int64 NumPy arrays.

The ``safetensors`` package checks the file; the bytes are read here because its NumPy side has no bfloat16
and because a table of user rows must be read a slice at a time, without being mapped into memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from fllm_export.errors import BundleError
from fllm_export.strict_json import parse
from fllm_export.system_errors import limit_error

_LARGEST_ID = 2**63 - 1

FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]

_FLOATS: dict[str, npt.DTypeLike] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_IDS: dict[str, npt.DTypeLike] = {
    **{f"I{8 * size}": f"<i{size}" for size in (8, 4, 2, 1)},
    **{f"U{8 * size}": f"<u{size}" for size in (8, 4, 2, 1)},
}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file: where it lies and what it is.

    Attributes:
        file: the safetensors file.
        name: the tensor's name inside it.
        dtype: as the file spells it, such as ``F32`` or ``BF16``.
        shape: its dimensions.
        offset: of its first byte, from the start of the file.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def __str__(self) -> str:
        """Return the words that messages use for this tensor."""
        return f"tensor {self.name!r} of {self.file}"

    def expect(self, shape: tuple[int | None, ...], *, ids: bool = False) -> None:
        """Check dtype and shape; None in ``shape`` stands for any size of at least 1.

        Raises:
            BundleError: something else was found.
        """
        accepted = _IDS if ids else _FLOATS
        if self.dtype not in accepted:
            raise BundleError(f"{self} has the dtype {self.dtype}", expected=" or ".join(accepted))
        fits = len(shape) == len(self.shape) and all(
            (found > 0) if wanted is None else found == wanted for wanted, found in zip(shape, self.shape, strict=True)
        )
        if not fits:
            words = ", ".join("any" if size is None else str(size) for size in shape)
            raise BundleError(f"{self} has the shape {list(self.shape)}", expected=f"[{words}]")

    def read(self, first: int = 0, count: int | None = None) -> FloatArray:
        """Return ``count`` rows from row ``first`` (all of them by default) as float32.

        Raises:
            BundleError: the file has become shorter, or a number is NaN or infinite.
        """
        values = self._decode(self._raw(first, count, _FLOATS[self.dtype]))
        bad = ~np.isfinite(values)
        if bad.any():
            row = first + int(np.argwhere(bad)[0][0])
            raise BundleError(f"{self} has a NaN or infinite number in row {row}", expected="finite numbers only")
        return values

    def read_ids(self) -> IdArray:
        """Return the whole tensor as int64.

        Raises:
            BundleError: the file has become shorter, or an id is above 2^63 - 1.
        """
        values = self._raw(0, None, _IDS[self.dtype])
        if self.dtype == "U64":
            high = values > np.uint64(_LARGEST_ID)
            if high.any():
                row = int(np.argmax(high))
                raise BundleError(f"{self} has {values[row]} in row {row}", expected=f"ids of at most {_LARGEST_ID}")
        return values.astype(np.int64, copy=False)

    def _raw(self, first: int, count: int | None, dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
        rows = self.shape[0] - first if count is None else count
        width = math.prod(self.shape[1:])
        start = self.offset + first * width * np.dtype(dtype).itemsize
        values = np.fromfile(self.file, dtype, rows * width, offset=start)
        if values.size != rows * width:
            raise BundleError(
                f"{self} ends after {values.size} of the {rows * width} numbers from row {first} on",
                expected="the file as it was when the checkpoint was opened",
                fix="Copy the checkpoint again",
            )
        return values.reshape(rows, *self.shape[1:])

    def _decode(self, raw: npt.NDArray[np.generic]) -> FloatArray:
        if self.dtype == "BF16":
            # A bfloat16 is the upper half of a float32.
            return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        with np.errstate(over="ignore"):
            return raw.astype(np.float32, copy=False)


def open_tensors(path: Path) -> Mapping[str, StoredTensor]:
    """Return the tensors of a safetensors file by name, after the file's structure has been checked.

    Raises:
        BudgetError: a limit of the system is reached.
        BundleError: the file is missing, cut off or not safetensors.
    """
    if not path.is_file():
        raise BundleError(f"{path} does not exist", expected="a safetensors file")
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        damaged = BundleError(
            f"{path} is damaged: {error}",
            expected="a whole safetensors file",
            fix="Copy the file again from where it was written",
        )
        raise limit_error(error, path) or damaged from error
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        try:
            header = parse(file.read(header_bytes))
        except ValueError as error:
            raise BundleError(f"{path} has a damaged header ({error})", expected="a safetensors file") from error
    data = 8 + header_bytes
    return {
        name: StoredTensor(path, name, entry["dtype"], tuple(entry["shape"]), data + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }
