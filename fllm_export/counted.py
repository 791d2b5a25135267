"""A number and the name of what it counts, for people."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """Return a number and what it counts, in the plural where it is not 1."""
    return f"{number:,} {what}" + "s" * (number != 1)
