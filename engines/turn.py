"""Whose turn it is to open a table again: one thread of a process at a time."""

from __future__ import annotations

import os
import threading


class Turn:
    """A lock per process: after a fork, a thread that is not in the child may hold its parent's for ever."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def lock(self) -> threading.Lock:
        """Return the lock of this process."""
        return self._locks.setdefault(os.getpid(), threading.Lock())
