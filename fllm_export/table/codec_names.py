"""The names of the codecs, apart from the codecs themselves, which need NumPy."""

from __future__ import annotations

from typing import Literal, get_args

CodecName = Literal["fp32", "fp16", "int8", "fp8", "int4", "int4row", "int2"]
CODEC_NAMES: tuple[CodecName, ...] = get_args(CodecName)
UNSKETCHED: tuple[CodecName, ...] = ("int4row", "int2")
"""Codecs whose rows are no longer than a sketch of them would be."""
