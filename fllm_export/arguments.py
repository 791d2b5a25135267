"""Arguments of public calls: what users of NumPy, pandas and torch would pass, turned into plain Python.

A value is taken where its meaning is plain, such as ``np.int64(8)`` for an integer or a Series for a list of ids. All
else is a :class:`UsageError` that names the argument. Nothing is rounded, and ids are never converted from floats,
strings or dates.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fllm_export.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Name = TypeVar("Name", bound=str)


def integer(value: Any, argument: str, *, least: int, most: int | None = None) -> int:
    """Return an integer: an ``int``, a NumPy integer, or an integer tensor or array without dimensions.

    Raises:
        UsageError: it is something else (a bool or 2.0, too), or outside ``least`` to ``most``.
    """
    expected = f"an integer of {least} or more" if most is None else f"an integer from {least} to {most}"
    try:
        number = None if _is_bool(value) else index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        raise UsageError(f"{argument} is {_shown(value)}", expected=expected)
    return number


def real(value: Any, argument: str, *, least: float, most: float = math.inf) -> float:
    """Return a finite number as a ``float``: any real number of Python, NumPy or torch.

    Raises:
        UsageError: it is something else (a bool or a string, too), is not finite, or is outside ``least`` to ``most``.
    """
    try:
        number = math.nan if _is_bool(value) or isinstance(value, str | bytes | bytearray) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not math.isfinite(number) or not least <= number <= most:
        limits = f"of {least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
        raise UsageError(f"{argument} is {_shown(value)}", expected=f"a finite number {limits}")
    return number


def milliseconds(value: Any, argument: str) -> float:
    """Return a budget of time, which must leave some.

    Raises:
        UsageError: it is not a finite number above 0.
    """
    expected = "a finite number of milliseconds above 0; leave it out for no limit"
    try:
        number = real(value, argument, least=0)
    except UsageError as error:
        raise UsageError(error.found, expected=expected) from error
    if number == 0:
        raise UsageError(f"{argument} is {_shown(value)}", expected=expected)
    return number


def flag(value: Any, argument: str) -> bool:
    """Return a bool of Python or NumPy.

    Raises:
        UsageError: it is something else.
    """
    if not _is_bool(value):
        raise UsageError(f"{argument} is {_shown(value)}", expected="True or False")
    return bool(value)


def path(value: Any, argument: str) -> Path:
    """Return a ``str`` or any ``os.PathLike`` of one as a path.

    Raises:
        UsageError: it is something else, is empty, or holds a zero byte.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"{argument} is {_shown(value)}", expected="a path, as str or Path")
    return Path(text)


def one_of(value: Any, argument: str, choices: Sequence[Name]) -> Name:
    """Return one of some names.

    Raises:
        UsageError: it is none of them.
    """
    for choice in choices:
        if isinstance(value, str) and value == choice:
            return choice
    raise UsageError(f"{argument} is {_shown(value)}", expected="one of " + ", ".join(choices))


def array(values: Any, argument: str) -> npt.NDArray[np.generic]:
    """Return what NumPy makes of an array, tensor, Series or nested list, of whatever dtype.

    Raises:
        UsageError: NumPy makes nothing of it, such as of a tensor on a GPU or of rows of unequal length.
    """
    import numpy as np

    if values is None or isinstance(values, str | bytes | dict | set | frozenset):
        raise UsageError(f"{argument} is {_shown(values)}", expected="an array")
    if hasattr(values, "requires_grad"):
        values = values.detach()
    elif not hasattr(values, "__array__") and not isinstance(values, list | tuple):
        values = list(values) if hasattr(values, "__iter__") else values
    try:
        found = np.asarray(values)
        if found.dtype.kind == "f" and isinstance(values, list | tuple) and all(type(v) is int for v in values):
            # NumPy rounds integers to floats where they fit no integer dtype together, such as 1 and 2^64 - 1.
            return np.array(values, object)
        return found
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{argument} is {_kind(values)} that NumPy cannot read ({_first_line(error)})",
            expected="an array on the CPU of a dtype that NumPy has",
            fix="For a tensor, call .float().cpu() first",
        ) from error


def numbers(values: Any, argument: str) -> npt.NDArray[np.generic]:
    """Return an array as :func:`array` does, in which objects that NumPy has a dtype for have got it.

    A pandas column whose elements are vectors becomes a matrix, and frames of nullable numbers become numbers.

    Raises:
        UsageError: as :func:`array`, such as for vectors of unequal length.
    """
    found = array(values, argument)
    return array(found.tolist(), argument) if found.dtype == object else found


def vectors(values: Any, argument: str, dim: int) -> npt.NDArray[np.float32]:
    """Return vectors as float32 [n, dim], n of at least 1: a matrix of numbers.

    Raises:
        UsageError: they are of another type or shape, or a vector is not finite in float32, which is named.
    """
    import numpy as np

    found = numbers(values, argument)
    if found.dtype.kind not in "fiu":
        raise UsageError(f"{argument} is an array of {found.dtype}", expected=f"numbers [n, {dim}]")
    if found.ndim != 2 or found.shape[1] != dim or len(found) == 0:
        raise UsageError(f"{argument} has the shape {list(found.shape)}", expected=f"[n, {dim}], at least one vector")
    with np.errstate(over="ignore"):
        rounded = found.astype(np.float32, copy=False)
    finite = np.isfinite(rounded)
    if not finite.all():
        row = int(np.argmin(finite.all(1)))
        raise UsageError(
            f"{argument} has a vector that is not finite, number {row} (counted from 0)",
            expected="finite numbers within float32's range",
        )
    return rounded


def integers(values: Any, argument: str) -> npt.NDArray[np.generic]:
    """Return an array as :func:`array` does, in which objects that are integers have become int64.

    Raises:
        UsageError: as :func:`array`, or an object is not an integer from 0 to 2^63 - 1, which is named.
    """
    found = array(values, argument)
    return _integers_in(found, argument) if found.dtype == object else found


def ids(values: Any, argument: str, rows: int | None = None, *, least: int = 0) -> npt.NDArray[np.int64]:
    """Return ids as int64 [n]: integers of any width, in an array, tensor, Series or list.

    Args:
        values: the ids.
        argument: its name, for messages.
        rows: how many there must be; any number when not given.
        least: the smallest that is accepted.

    Raises:
        UsageError: they are of another type (never converted: 1.9 is no id, nor is "7"), below ``least``, above
            2^63 - 1, or not as many as rows.
    """
    import numpy as np

    found = integers(values, argument)
    wanted = "[n]" if rows is None else f"[{rows}], one per row"
    if found.ndim != 1 or (rows is not None and len(found) != rows):
        raise UsageError(f"{argument} has the shape {list(found.shape)}", expected=f"integers {wanted}")
    if not found.size:
        return np.empty(0, np.int64)
    if found.dtype.kind not in "iu":
        raise UsageError(
            f"{argument} is an array of {found.dtype}, such as {found[:1].tolist()[0]!r:.60}",
            expected=f"integers {wanted}",
            fix="Convert them where you know what they mean; ids are never converted here",
        )
    if int(found.min()) < least or int(found.max()) >= 1 << 63:
        raise UsageError(
            f"{argument} runs from {found.min()} to {found.max()}", expected=f"ids from {least} to 2^63 - 1"
        )
    return found.astype(np.int64)


def unique_ids(values: Any, argument: str, rows: int) -> npt.NDArray[np.int64]:
    """Return ids as :func:`ids` does, one per row and each of them once.

    Raises:
        UsageError: as :func:`ids`, or an id occurs twice, which is named.
    """
    import numpy as np

    found = ids(values, argument, rows)
    ascending = np.sort(found)
    repeated = ascending[1:][ascending[1:] == ascending[:-1]]
    if len(repeated):
        raise UsageError(f"{argument} holds {repeated[0]} twice", expected="each id once")
    return found


def _integers_in(found: npt.NDArray[np.generic], argument: str) -> npt.NDArray[np.generic]:
    """Return an array of objects as int64 (uint64 where one is above 2^63 - 1), all of them being integers."""
    import numpy as np

    numbers = [
        integer(value, f"{argument}[{place}]", least=0, most=(1 << 63) - 1) for place, value in enumerate(found.flat)
    ]
    return np.array(numbers, np.int64).reshape(found.shape)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _shown(value: Any) -> str:
    """Return a value as messages show it: itself where it is short, else its type."""
    if isinstance(value, int) and value.bit_length() > 512:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else _kind(value)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
