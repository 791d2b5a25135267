"""The temporary directory of a probe, which does not outlive its process for long."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".probe."


@contextmanager
def probe_folder(folder: Path) -> Iterator[Path]:
    """Make a temporary directory below ``folder`` that is removed at the end, and remove those of killed processes.

    A probe holds a lock on its directory. The system releases it when the process ends in any way, so a directory that
    can be locked is left over. Where the file system has no locks, nothing left over is removed.
    """
    # While this lock is held, no other probe takes a new directory for one that is left over.
    starting = _lock(folder, wait=True)
    try:
        if starting is not None:
            _remove_left_over(folder)
        place = Path(tempfile.mkdtemp(dir=folder, prefix=PREFIX))
        held = _lock(place)
    finally:
        _release(starting)
    try:
        yield place
    finally:
        shutil.rmtree(place)
        _release(held)


def _remove_left_over(folder: Path) -> None:
    for place in folder.glob(f"{PREFIX}*"):
        held = _lock(place) if place.is_dir() else None
        if held is not None:
            shutil.rmtree(place, ignore_errors=True)  # perhaps another user's
            _release(held)


def _lock(directory: Path, *, wait: bool = False) -> int | None:
    """Return a descriptor that holds a lock on a directory; None where another holds it, or there are no locks."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _release(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
