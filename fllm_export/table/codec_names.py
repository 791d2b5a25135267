"""The names of the codecs, apart from the codecs themselves, which need NumPy."""

from __future__ import annotations

from typing import Literal, get_args

CodecName = Literal["fp32", "fp16", "int8", "fp8", "int4", "int4row", "int2", "int1"]
CODEC_NAMES: tuple[CodecName, ...] = get_args(CodecName)
UNSKETCHED: tuple[CodecName, ...] = ("int4row", "int2", "int1")
"""Codecs whose rows are no longer than a sketch of them would be."""

RefineName = Literal["no", "int8", "fp16"]
REFINE_NAMES: tuple[RefineName, ...] = get_args(RefineName)
REFINE_CODECS: tuple[CodecName, ...] = ("int8", "fp16")
"""Codecs of refinement rows."""

REFINE_DEFAULT = 4
"""Candidates per user wanted that refinement rows rank again, where nothing else is said (libfllm has it too)."""
REFINE_MAX = 1 << 20
"""More candidates per user wanted than that are not accepted."""
