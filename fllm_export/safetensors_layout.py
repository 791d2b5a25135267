"""How tensors lie in a safetensors file: its header, for data that is written piece by piece.

The ``safetensors`` package needs all tensors in memory at once. The format is a length, a JSON header and the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LEAST_ALIGNMENT = 8
PADDING = "padding."
"""Begins the names of tensors that only fill the space up to the next page."""


@dataclass(frozen=True)
class TensorFacts:
    """What a header says of a tensor.

    Attributes:
        dtype: as safetensors spells it, for example ``F32``.
        shape: its dimensions.
        bytes: of its data.
    """

    dtype: str
    shape: Sequence[int]
    bytes: int


@dataclass(frozen=True)
class Layout:
    """A file's header and the bytes between its tensors.

    Attributes:
        header: the length and the JSON, to be written first.
        gaps: zero bytes to be written after the data of each tensor.
        size: of the whole file, in bytes.
    """

    header: bytes
    gaps: dict[str, int]
    size: int


def lay_out(
    tensors: Mapping[str, TensorFacts], *, page_bytes: int = 1, metadata: Mapping[str, str] | None = None
) -> Layout:
    """Return the layout of a file whose tensors follow one another in the order given.

    The format allows no holes: what lies between a tensor's end and the next page is a tensor of its own, named
    ``padding.N``.

    Args:
        tensors: by name.
        page_bytes: every tensor begins at a multiple of it, counted from the start of the file.
        metadata: free text for ``__metadata__``.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    gaps, offset = {}, 0
    for number, (name, facts) in enumerate(tensors.items()):
        header[name] = _entry(facts.dtype, facts.shape, offset, facts.bytes)
        offset += facts.bytes
        gaps[name] = -offset % page_bytes if number + 1 < len(tensors) else 0
        if gaps[name]:
            header[f"{PADDING}{number}"] = _entry("U8", (gaps[name],), offset, gaps[name])
            offset += gaps[name]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % max(page_bytes, _LEAST_ALIGNMENT))
    return Layout(len(text).to_bytes(8, "little") + text, gaps, 8 + len(text) + offset)


def _entry(dtype: str, shape: Sequence[int], offset: int, size: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
