"""The sizes of all cases: full ones for figures, small and tiny ones to see that everything runs."""

from __future__ import annotations

from dataclasses import dataclass

Size = tuple[int, int]
"""Rows and their dimension."""


@dataclass(frozen=True)
class Preset:
    """Sizes by case.

    Attributes:
        read: one item against a table of ordinary rows; also the sketch's.
        wide: the same for longer rows.
        batch: many items at once.
        recall: the contest of libraries.
        disk: the table that is read from disk.
        codecs: the tables of several codecs, all in memory.
        items: of a batch.
        repeats: rounds of each paired timing.
    """

    read: Size
    wide: tuple[Size, ...]
    batch: Size
    recall: Size
    disk: Size
    codecs: Size
    items: int = 128
    repeats: int = 21


PRESETS = {
    "full": Preset(
        read=(8_000_000, 128),
        wide=((1_000_000, 384), (1_000_000, 4_096)),
        batch=(2_000_000, 128),
        recall=(1_000_000, 128),
        disk=(100_000_000, 64),
        codecs=(8_000_000, 256),
    ),
    "small": Preset(
        read=(1_000_000, 128),
        wide=((200_000, 384), (50_000, 4_096)),
        batch=(262_144, 128),
        recall=(131_072, 128),
        disk=(4_000_000, 64),
        codecs=(500_000, 256),
        repeats=7,
    ),
    "tiny": Preset(
        read=(5_000, 128),
        wide=((2_000, 384),),
        batch=(5_000, 128),
        recall=(5_000, 128),
        disk=(20_000, 64),
        codecs=(5_000, 256),
        items=8,
        repeats=2,
    ),
}
