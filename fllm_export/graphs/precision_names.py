"""The names of an encoder's lower precisions, apart from the graphs, which need ONNX."""

from __future__ import annotations

from typing import Literal, get_args

Precision = Literal["fp16", "bf16", "fp8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
