"""JSON of files that nobody vouches for."""

from __future__ import annotations

import json
from typing import Any


def parse(text: bytes) -> Any:
    """Parse a document in which every name stands once in its object.

    A name that stands twice is how a file shows one thing to one reader and another to the next.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or holds a name twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"the name {next(name for name in names if names.count(name) > 1)!r} stands twice in one object"
        )
    return members
