"""A file that ``torch.save`` wrote, read without running any code in it."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BundleError, HardwareError
from fllm_export.system_errors import limit_error

if TYPE_CHECKING:
    import torch


def read_torch_file(path: Path, expected: str, fix: str) -> object:
    """Return what the file holds: tensors in dicts and lists, mapped from disk where the format allows.

    Args:
        path: the file.
        expected: what it should be, for the message when it does not exist.
        fix: how to write it with tensors only.

    Raises:
        BundleError: it does not exist, is damaged, or would run code when opened.
        HardwareError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise HardwareError(
            f"torch is not installed and {path} is a torch file",
            expected="torch",
            fix="pip install 'fllm-export[build]'",
        ) from error
    if not path.is_file():
        raise BundleError(f"{path} does not exist", expected=expected)
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise BundleError(
            f"{path} holds more than tensors and was refused: {_first_line(error)}",
            expected="a file with tensors only; none of its code was run",
            fix=fix,
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        damaged = BundleError(
            f"{path} is damaged: {_first_line(error)}", expected="a whole torch file", fix="Copy the file again"
        )
        raise limit_error(error, path) or damaged from error
    return content


def tensor_array(tensor: torch.Tensor) -> npt.NDArray[np.generic]:
    """Return a tensor as an array, without a copy where NumPy has its type."""
    # NumPy has no bfloat16; every other float keeps its type, so that a mapped file stays on disk.
    plain = tensor.detach()
    return (plain.float() if plain.dtype.itemsize < 4 else plain).numpy()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
