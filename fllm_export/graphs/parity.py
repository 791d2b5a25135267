"""Whether an exported encoder computes what the torch model computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fllm_export.checkpoint.model import ItemEncoder
from fllm_export.environment import default_threads
from fllm_export.errors import ParityError, UsageError
from fllm_export.graphs.encoder import INPUTS, OUTPUT, IdsAndMask
from fllm_export.onnx_session import cpu_session


@dataclass(frozen=True)
class EncoderParity:
    """How far the ONNX encoder is from the torch model.

    Attributes:
        max_abs: largest difference of a component of z.
        max_rel: largest difference of a component of z over the largest component of the same item.
        batches: batches compared.
        items: items compared.
    """

    max_abs: float
    max_rel: float
    batches: int
    items: int

    def require(self, tolerance: float) -> None:
        """Raise unless ``max_rel`` is at most ``tolerance``.

        Raises:
            ParityError: the encoders differ by more, or by something that is not a number.
        """
        # Written so that NaN fails.
        if not self.max_rel <= tolerance:
            raise ParityError(
                f"the ONNX encoder differs from torch by {self.max_rel:.3g} of an item vector's largest component, "
                f"over {self.items} items",
                expected=f"at most {tolerance:g}",
                fix="Try the versions of torch, transformers and onnxscript in the constraints files",
            )


def compare_encoder(onnx_path: Path, encoder: ItemEncoder, batches: Sequence[IdsAndMask]) -> EncoderParity:
    """Run both encoders over the same batches on the CPU.

    Raises:
        UsageError: there is no batch.
        BundleError: ONNX Runtime cannot read the model.
    """
    if not batches:
        raise UsageError("there is no batch to compare the encoders on", expected="at least one")
    session = cpu_session(onnx_path, default_threads())
    max_abs = max_rel = 0.0
    for ids, mask in batches:
        with torch.no_grad():
            expected = encoder(torch.from_numpy(ids), torch.from_numpy(mask)).double().numpy()
        (found,) = session.run([OUTPUT], dict(zip(INPUTS, (ids, mask), strict=True)))
        difference = np.abs(found.astype(np.float64) - expected).max(1)
        size = np.abs(expected).max(1)
        # An item vector of zeros (relu) has no size of its own: there the difference itself counts.
        relative = difference / np.where(size > 0, size, 1.0)
        # np.maximum, unlike max, keeps NaN.
        max_abs = float(np.maximum(max_abs, difference.max()))
        max_rel = float(np.maximum(max_rel, relative.max()))
    return EncoderParity(max_abs, max_rel, len(batches), sum(len(ids) for ids, _ in batches))
