"""A bundle's encoder in lower precision, compared with the float32 one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.errors import ParityError
from fllm_export.extras import require
from fllm_export.graphs.precision_names import Precision
from fllm_export.onnx_session import cpu_session
from fllm_export.progress import Progress
from fllm_export.prompt import Prompt, load_tokenizer

LEAST_COSINE: dict[Precision, float] = {"fp16": 0.9999, "fp8": 0.95}
"""The least cosine of an item vector in that precision with the float32 one; bf16 cannot be run on a CPU."""

Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Token ids and mask, [1, tokens]."""


@dataclass(frozen=True)
class Lowered:
    """What became of an encoder.

    Attributes:
        cosine: the least cosine of an item vector with the float32 one; None where they were not compared.
        tf32: whether what stays in float32 may be multiplied in TF32, with 10 bits of mantissa, as GPUs do by default.
            Not with a ``kernel`` mapper, for the reason that keeps its products in float32.
    """

    cosine: float | None
    tf32: bool


def why_not_compared(precision: Precision, texts: Sequence[str]) -> str | None:
    """Return why an encoder in that precision cannot be compared with the float32 one here; None where it can."""
    if precision not in LEAST_COSINE:
        return f"a CPU does not run {precision}"
    return None if texts else "no item texts were given"


def token_batches(bundle: Path, prompt: Prompt, texts: Sequence[str]) -> list[Batch]:
    """Return the tokens of each text as a batch of its own."""
    if not texts:
        return []
    ids = prompt.tokenize(load_tokenizer(bundle / "tokenizer.json"), texts)
    return [prompt.batch([one]) for one in ids]


def lower_encoder(
    model: Path, lowered: Path, precision: Precision, batches: Sequence[Batch], threads: int, progress: Progress
) -> Lowered:
    """Write an encoder graph again, in lower precision, and compare both on the CPU.

    Args:
        model: the float32 graph.
        lowered: where the other goes.
        precision: of its products with weights.
        batches: real items; fp8 takes the scales of its activations from them, and needs one at least.
        threads: of the runs.
        progress: told of every item.

    Returns:
        How close the lowered encoder is, and what a plan of it may do.

    Raises:
        ParityError: an item vector turns too far.
    """
    onnx, ir = require("onnx"), require("onnx_ir")
    lowering = require("fllm_export.graphs.precision")
    whole = onnx.load(model)
    peaks = {}
    if precision == "fp8":
        measure: Callable[..., dict[str, float]] = require("fllm_export.calibration.activations").activation_peaks
        peaks = measure(model, lowering.quantised_inputs(whole), batches, threads)
    changed = lowering.lower_precision(whole, precision, peaks)
    require("fllm_export.graphs.model_files").publish_model(ir.from_proto(changed), lowered)
    tf32 = not lowering.kernel_products(changed.graph)
    if not batches or precision not in LEAST_COSINE:
        return Lowered(None, tf32)
    least = _least_cosine(model, lowered, f"encoder in {precision}", batches, threads, progress)
    if not least >= LEAST_COSINE[precision]:
        raise ParityError(
            f"an item vector of the encoder in {precision} has cosine {least:.5f} with the float32 one",
            expected=f"at least {LEAST_COSINE[precision]}",
            fix="Choose another --precision",
        )
    return Lowered(least, tf32)


def _least_cosine(
    model: Path, lowered: Path, stage: str, batches: Sequence[Batch], threads: int, progress: Progress
) -> float:
    sessions: list[Any] = [cpu_session(path, threads) for path in (model, lowered)]
    least = 1.0
    for number, (ids, mask) in enumerate(batches):
        progress(stage, number, len(batches))
        feed = {"input_ids": ids, "attention_mask": mask}
        z, changed = (session.run(["item_vector"], feed)[0][0].astype(np.float64) for session in sessions)
        norms = float(np.linalg.norm(z) * np.linalg.norm(changed))
        cosine = float(z @ changed) / norms if norms else float(not (z - changed).any())
        least = min(least, cosine)
    progress(stage, len(batches), len(batches))
    return least
