"""Float tensors in a safetensors file: how what calibration has measured is kept in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fllm_export.errors import BundleError
from fllm_export.files import publish

Floats = npt.NDArray[np.floating]


def write_tensors(path: Path, tensors: Mapping[str, Floats], metadata: Mapping[str, str]) -> None:
    """Write tensors of any float dtype, all or nothing."""
    whole = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with publish(path) as file:
        file.write(save(whole, dict(metadata)))


def read_tensors(path: Path, shapes: Mapping[str, tuple[str, ...]]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the tensors of a file as float64.

    Args:
        path: the file.
        shapes: name of each tensor -> its lengths by letter, for example ``("d", "d")``; equal letters, equal lengths.

    Raises:
        BundleError: the file is missing or damaged, holds other tensors, or one is not finite.
    """
    fix = "Build the bundle again"
    try:
        found = load(path.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise BundleError(f"{path} cannot be read ({error})", expected="a safetensors file", fix=fix) from error
    if set(found) != set(shapes):
        raise BundleError(f"{path} holds {', '.join(sorted(found))}", expected=", ".join(sorted(shapes)), fix=fix)
    lengths: dict[str, int] = {}
    for name, letters in shapes.items():
        array = found[name]
        same = array.ndim == len(letters) and all(
            lengths.setdefault(letter, length) == length for letter, length in zip(letters, array.shape, strict=True)
        )
        if not same or array.dtype.kind != "f" or not np.isfinite(array).all():
            words = f"{path}: {name} is {array.dtype} {list(array.shape)}"
            raise BundleError(words, expected=f"finite numbers [{', '.join(letters)}]", fix=fix)
    return {name: array.astype(np.float64) for name, array in found.items()}
