"""Names by which callers choose, apart from the engines, which need NumPy: `--help` is printed without it."""

from __future__ import annotations

from typing import Literal, get_args

EncoderName = Literal["cpu", "cpu-fp32", "cuda", "tensorrt", "tensorrt-fp16", "tensorrt-bf16", "tensorrt-fp8"]
ENCODERS: tuple[EncoderName, ...] = get_args(EncoderName)
"""What encodes texts: ONNX Runtime on CPU (as the bundle was built for it, or in float32) or GPU; a plan, the first
there is or that of the precision named."""

Mode = Literal["topk", "sample"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""What is returned: the K best users, or K users drawn from the distribution."""

LogProbs = Literal["exact", "estimate", "none", "certified"]
LOG_PROBS: tuple[LogProbs, ...] = get_args(LogProbs)
"""Where the softmax denominator comes from: every row; a sample; nowhere; every row not proven to be negligible. In the
order of fllm_log_probs."""
