"""How long work reports that it is moving: a callback, so that the library never prints."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``; units are the stage's own (rows, batches, steps)."""


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""
