"""What does not fit into memory or onto disk, and what would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fllm_export.table.codec_names import UNSKETCHED, CodecName
from fllm_export.table.codecs import CODECS
from fllm_export.table.options import TableOptions

Need = Callable[[TableOptions, int], int]
"""Bytes that each of so many machines needs for a table that is written with these options."""


@dataclass(frozen=True)
class Shortage:
    """Something that a machine has too little of.

    Attributes:
        what: ``memory`` or ``disk``.
        needed: bytes of each machine.
        available: bytes of each machine.
        remedies: changes each of which would be enough by itself, as options of the command; may be none.
    """

    what: str
    needed: int
    available: int
    remedies: tuple[str, ...]


def shortage(
    what: str, need: Need, options: TableOptions, machines: int, available: int, machines_most: int
) -> Shortage | None:
    """Return what is missing and what would help, or None where it fits; each machine needs a row of its own."""
    needed = need(options, machines)
    if needed <= available:
        return None
    fits = [text for text, changed in _smaller(options) if need(changed, machines) <= available]
    enough = _machines(lambda count: need(options, count) <= available, machines, machines_most)
    return Shortage(what, needed, available, tuple([*([f"--machines {enough}"] if enough else []), *fits]))


def _smaller(options: TableOptions) -> list[tuple[str, TableOptions]]:
    """Return tables that take fewer bytes: without a sketch, or with a codec of smaller rows."""
    found = [] if options.sketch == "no" else [("--sketch no", replace(options, sketch="no"))]
    present = CODECS[options.quant].row_bytes(_SOME_DIM)
    smaller = [name for name in CODECS.values() if name.row_bytes(_SOME_DIM) < present]
    smaller.sort(key=lambda one: -one.row_bytes(_SOME_DIM))
    return [*found, *(_with_codec(options, one.name) for one in smaller)]


def _with_codec(options: TableOptions, name: CodecName) -> tuple[str, TableOptions]:
    if options.sketch == "yes" and name in UNSKETCHED:
        return f"--quant {name} --sketch no", replace(options, quant=name, sketch="no")
    return f"--quant {name}", replace(options, quant=name)


def _machines(fits: Callable[[int], bool], least: int, most: int) -> int | None:
    """Return the smallest number of machines that fits, or None: what each needs does not grow with their number."""
    low, high = least, least
    while not fits(high):
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


_SOME_DIM = 256
"""Codecs are compared at this dimension; the order is the same at all that are used."""
