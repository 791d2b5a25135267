"""A number with the arithmetic that gave it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """A number and how it came about.

    Attributes:
        value: in ``unit``.
        unit: for example ``bytes`` or ``seconds``.
        arithmetic: the calculation as text, with the numbers that went into it.
    """

    value: float
    unit: str
    arithmetic: str
