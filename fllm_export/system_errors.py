"""What the operating system refuses, told apart from damaged files: limits are exit code 5, paths are exit code 2."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from fllm_export.errors import BudgetError, UsageError

_LIMITS = {
    errno.ENOMEM: "Free some memory, or raise the limit (ulimit -v)",
    errno.EMFILE: "Raise the limit on open files (ulimit -n)",
    errno.ENFILE: "Close some files: the machine's limit is reached",
    errno.ENOSPC: "Free some space on the disk, or choose another place",
    errno.EDQUOT: "Free some space, or request a larger quota",
    errno.EFBIG: "Raise the limit on file size (ulimit -f), or choose another file system",
    errno.EAGAIN: "Raise the limit on processes (ulimit -u)",
}

_PATHS = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
    errno.ENXIO,
    errno.ENODEV,
    errno.EXDEV,
    errno.EBUSY,
}

_EXPECTED = "a path to write to"

# Libraries that are not Python's own put the system's words into their messages.
_WORDS = {
    "allocate memory": errno.ENOMEM,
    "bad_alloc": errno.ENOMEM,
    "not enough memory": errno.ENOMEM,
    "Too many open files": errno.EMFILE,
    "No space left on device": errno.ENOSPC,
    "File too large": errno.EFBIG,
}


def limit_error(error: BaseException, what: str | Path) -> BudgetError | None:
    """Return the error to raise where a limit of the system is behind another error, else None.

    Args:
        error: what was caught: an ``OSError``, a ``MemoryError``, or a library's own error that tells of one.
        what: what could not be read, written or made, for the message.
    """
    if isinstance(error, MemoryError):
        number = errno.ENOMEM
    elif isinstance(error, OSError) and error.errno is not None:
        number = error.errno
    else:
        number = next((number for words, number in _WORDS.items() if words in str(error)), 0)
    if number not in _LIMITS:
        return None
    return BudgetError(f"{what}: {os.strerror(number)}", expected="what the system allows", fix=_LIMITS[number])


def path_error(error: OSError) -> UsageError | None:
    """Return the error to raise where a path that the caller named is behind an ``OSError``, else None."""
    if error.errno not in _PATHS:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return UsageError(f"{where}{error.strerror}", expected="a path that can be read or written")


def check_place(path: Path, argument: str) -> None:
    """Check that files can be made at a path, whose missing parents will be made as well.

    Args:
        path: where a file or a directory is to be written; what is there already is not looked at.
        argument: the name of the argument, for messages.

    Raises:
        UsageError: a part of the path is a file or a link to nothing, cannot be searched or written, or has too long
            a name.
    """
    place = path.absolute()
    try:
        while not place.exists():
            if place.is_symlink():
                raise UsageError(f"{argument} is {path} and {place} is a link to nothing", expected=_EXPECTED)
            place = place.parent
    except OSError as error:
        raise UsageError(f"{argument} is {path}: {error.strerror}", expected=_EXPECTED) from error
    if place == path.absolute():
        place = place.parent
    if not place.is_dir():
        raise UsageError(f"{argument} is {path} and {place} is a file", expected=_EXPECTED)
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"{argument} is {path} and {place} cannot be written", expected=_EXPECTED)
