"""The names of a table's files beside ``table.json``."""

from __future__ import annotations

import re


def shard_name(number: int) -> str:
    """Return the name of the shard of that number, counted from 0."""
    return f"{number:05d}.safetensors"


def segment_name(generation: int, token: str, number: int) -> str:
    """Return the name of a shard that a change of the table adds; the random token makes it one that no file had."""
    return f"{generation:08d}-{token}-{number:03d}.safetensors"


def segment_refinement_name(generation: int, token: str, number: int) -> str:
    """Return the name of the refinement rows of that shard."""
    return f"{generation:08d}-{token}-refine-{number:03d}.safetensors"


def tombstones_name(generation: int, token: str) -> str:
    """Return the name of the tombstones that a change of the table writes."""
    return f"{generation:08d}-{token}-tombstones.safetensors"


def histories_name(generation: int, token: str) -> str:
    """Return the name of the histories of the users that a change of the table learns or forgets."""
    return f"{generation:08d}-{token}-histories.safetensors"


OWN_FILE = re.compile(r"((refine-)?\d{5}|\d{8,}-[0-9a-f]+-((refine-)?\d{3,}|tombstones|histories))\.safetensors")
"""Names of rows, refinement rows, tombstones and histories; a writer removes such files that no layout lists."""
