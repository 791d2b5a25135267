"""Changes of a table by libfllm's C interface, through ctypes, with the calls of :class:`LivingTable`."""

from __future__ import annotations

import ctypes
import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

from fllm_export import BudgetError, BundleError, FllmError, UsageError

ERRORS: dict[int, type[FllmError]] = {2: UsageError, 4: BundleError, 5: BudgetError}


class ErrorText(ctypes.Structure):
    _fields_ = (("message", ctypes.c_char * 1024),)


class Options(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("if_generation", ctypes.c_int64))


class Change(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("generation", ctypes.c_int64),
        *((name, ctypes.c_uint64) for name in ("users", "appended", "updated", "deleted", "shards", "deleted_rows")),
    )


def library() -> ctypes.CDLL:
    """The library of the installed package; its headers stand beside it."""
    folder = Path(str(importlib.metadata.distribution("fllm-export").locate_file("fllm_export/lib")))
    return ctypes.CDLL(str(folder / "libfllm.so"))


class NativeTable:
    """The writer of a table, in C."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._library = library()

    def append(self, rows: Any, ids: Any, bias: Any = None, *, if_generation: int = 0) -> Change:
        return self._put("append", rows, ids, bias, if_generation)

    def update(self, rows: Any, ids: Any, bias: Any = None, *, if_generation: int = 0) -> Change:
        return self._put("update", rows, ids, bias, if_generation)

    def delete(self, ids: Any, *, if_generation: int = 0) -> Change:
        users = np.ascontiguousarray(ids, np.int64)
        return self._call("delete", if_generation, _pointer(users), ctypes.c_size_t(len(users)))

    def _put(self, name: str, rows: Any, ids: Any, bias: Any, if_generation: int) -> Change:
        given, users = np.ascontiguousarray(rows, np.float32), np.ascontiguousarray(ids, np.int64)
        beside = None if bias is None else np.ascontiguousarray(bias, np.float32)
        extents = (ctypes.c_size_t(extent) for extent in given.shape)
        return self._call(name, if_generation, _pointer(given), *extents, _pointer(beside), _pointer(users))

    def _call(self, name: str, if_generation: int, *arguments: Any) -> Change:
        options = Options(ctypes.sizeof(Options), if_generation)
        change, error = Change(ctypes.sizeof(Change)), ErrorText()
        function = getattr(self._library, f"fllm_users_{name}")
        told = (ctypes.byref(options), ctypes.byref(change), ctypes.byref(error))
        status = function(str(self.directory).encode(), *arguments, *told)
        if status:
            raise ERRORS[status](error.message.decode())
        return change


def _pointer(array: np.ndarray | None) -> ctypes.c_void_p | None:
    return None if array is None else ctypes.c_void_p(array.ctypes.data)
