"""Whether an exported encoder computes what the Hugging Face model computes for each text alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from fllm_export.checkpoint.model import ItemEncoder
from fllm_export.environment import default_threads
from fllm_export.errors import ParityError, UsageError
from fllm_export.graphs.encoder import INPUTS, OUTPUT, IdsAndMask
from fllm_export.onnx_session import cpu_session
from fllm_export.prompt import PaddingSide, Prompt

_ALONE = "alone"


@dataclass(frozen=True)
class EncoderParity:
    """How far the ONNX encoder is from the plain Hugging Face model, which gets each text alone and unpadded.

    Attributes:
        max_abs: largest difference of a component of z.
        max_rel: largest difference of a component of z over the largest component of the same item.
        batches: batches compared.
        items: items compared.
        max_rel_by_padding: ``max_rel`` over the batches without padding (``alone``), and over those that are padded on
            the ``left`` and on the ``right``.
        worst: number of the batch with the largest ``max_rel``; NaN is larger than all numbers.
    """

    max_abs: float
    max_rel: float
    batches: int
    items: int
    max_rel_by_padding: dict[str, float]
    worst: int

    def require(self, tolerance: float, texts: Sequence[str] = ()) -> None:
        """Raise unless ``max_rel`` is at most ``tolerance``.

        Args:
            tolerance: for the largest difference relative to the item vector's largest component.
            texts: those of the first batches, one text per batch, to be named in the message.

        Raises:
            ParityError: the encoders differ by more, or by something that is not a number.
        """
        # Written so that NaN fails.
        if self.max_rel <= tolerance:
            return
        expected = f"at most {tolerance:g}"
        off = [side for side, value in self.max_rel_by_padding.items() if not value <= tolerance]
        if _ALONE not in off:
            raise ParityError(
                f"an item vector of the exported encoder changes by {self.max_rel:.3g} of its largest component when a "
                f"longer text shares the batch and padding is on the {' and on the '.join(off)}",
                expected=expected,
                fix="The exported positions count padding. Use the exporter torch, or padding_side right",
            )
        named = f", the most for the text {texts[self.worst]!r}" if self.worst < len(texts) else ""
        raise ParityError(
            f"the ONNX encoder differs from torch by {self.max_rel:.3g} of an item vector's largest component, "
            f"over {self.items} items{named}",
            expected=expected,
            fix="Try the versions of torch, transformers and onnxscript in the constraints files",
        )


def probe_batches(prompt: Prompt, texts: Sequence[Sequence[int]], sides: Sequence[PaddingSide]) -> list[IdsAndMask]:
    """Return each text alone, and all texts and the first half of the longest one as one batch padded on each side.

    Args:
        prompt: how a batch is padded.
        texts: the tokens of each text.
        sides: of the padding.
    """
    longest = max(texts, key=len)
    several = [*texts, longest[: (len(longest) + 1) // 2]]
    alone = [prompt.batch([text]) for text in texts]
    return alone + [replace(prompt, padding_side=side).batch(several) for side in sides]


def compare_encoder(onnx_path: Path, encoder: ItemEncoder, batches: Sequence[IdsAndMask]) -> EncoderParity:
    """Run the ONNX encoder over batches, and the Hugging Face model over each of their texts alone, on the CPU.

    The Hugging Face model gets token ids and nothing else: no padding, no mask, and positions of its own.

    Raises:
        UsageError: there is no batch.
        BundleError: ONNX Runtime cannot read the model.
    """
    if not batches:
        raise UsageError("there is no batch to compare the encoders on", expected="at least one")
    session = cpu_session(onnx_path, default_threads())
    plain = _PlainEncoder(encoder)
    max_abs, by_padding, by_batch = 0.0, dict[str, float](), list[float]()
    for ids, mask in batches:
        expected = np.stack([plain.item_vector(row[real > 0]) for row, real in zip(ids, mask, strict=True)])
        (found,) = session.run([OUTPUT], dict(zip(INPUTS, (ids, mask), strict=True)))
        difference = np.abs(found.astype(np.float64) - expected).max(1)
        size = np.abs(expected).max(1)
        # An item vector of zeros (relu) has no size of its own: there the difference itself counts.
        relative = difference / np.where(size > 0, size, 1.0)
        # np.maximum, unlike max, keeps NaN.
        max_abs = float(np.maximum(max_abs, difference.max()))
        by_batch.append(float(relative.max()))
        padding = _padding(mask)
        by_padding[padding] = float(np.maximum(by_padding.get(padding, 0.0), by_batch[-1]))
    worst, items = int(np.argmax(by_batch)), sum(len(ids) for ids, _ in batches)
    return EncoderParity(max_abs, by_batch[worst], len(batches), items, by_padding, worst)


class _PlainEncoder:
    """The Hugging Face model as its users call it, with pooling, features and mapper behind it."""

    def __init__(self, encoder: ItemEncoder) -> None:
        self._encoder = encoder
        self._known: dict[bytes, npt.NDArray[np.float64]] = {}

    def item_vector(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return z, float64 [d], of one text's tokens, int64 [L]."""
        key = tokens.tobytes()
        if key not in self._known:
            encoder, ids = self._encoder, torch.from_numpy(tokens)[None]
            with torch.inference_mode():
                states = encoder.encoder(input_ids=ids).last_hidden_state
                z = encoder.mapped(encoder.reduced(states, torch.ones_like(ids)))
            self._known[key] = cast(npt.NDArray[np.float64], z[0].double().numpy())
        return self._known[key]


def _padding(mask: npt.NDArray[np.int64]) -> str:
    if mask.all():
        return _ALONE
    return "right" if mask[:, 0].all() else "left"
