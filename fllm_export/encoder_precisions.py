"""The precisions of a bundle's encoder on CPUs, apart from what makes them, which needs ONNX."""

from __future__ import annotations

from typing import Literal, get_args

EncoderPrecision = Literal["fp32", "int8", "int4"]
ENCODER_PRECISIONS: tuple[EncoderPrecision, ...] = get_args(EncoderPrecision)

CPU_MODEL = "cpu.onnx"
"""The encoder as CPUs run it, beside ``model.onnx`` in float32; absent where that is what they run."""
