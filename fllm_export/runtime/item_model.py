"""What runs a bundle's encoder graph: ONNX Runtime on the CPU or a GPU, or a TensorRT plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.encoder_precisions import CPU_MODEL
from fllm_export.engines.names import ENCODERS
from fllm_export.environment import chosen_encoder
from fllm_export.errors import BundleError, UsageError
from fllm_export.onnx_session import cpu_session, cuda_session

_BATCH = 32


class ItemModel(Protocol):
    """An encoder that is ready to run. Safe to use from many threads at once.

    Attributes:
        most_items: of a call.
    """

    most_items: int

    def run(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return item vectors, float32 [B, d], for token ids and mask, int64 [B, tokens]."""
        ...


class OnnxItemModel:
    """The encoder graph in ONNX Runtime.

    Args:
        session: an open session of it.
    """

    most_items = _BATCH

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return item vectors, float32 [B, d], for token ids and mask, int64 [B, tokens]."""
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        z: npt.NDArray[np.float32] = self._session.run(["item_vector"], feed)[0]
        return z


def encoder_name(requested: str | None, engine: str) -> str:
    """Return the encoder to open: the caller's, or else the environment's, or else the default beside an engine.

    The default is a plan beside the engine `tensorrt`, and the CPU beside all others.
    """
    if requested is None:
        return chosen_encoder() or ("tensorrt" if engine == "tensorrt" else "cpu")
    return requested


def open_item_model(name: str, bundle: Path, dim: int, threads: int) -> ItemModel:
    """Open a bundle's encoder.

    Args:
        name: one of :data:`fllm_export.engines.names.ENCODERS`.
        bundle: the bundle's directory.
        dim: dimension of an item vector.
        threads: threads inside one call on the CPU.

    Raises:
        UsageError: there is no encoder of that name.
        BundleError: ``encoder/model.onnx`` or a plan is missing or unreadable.
        HardwareError: the requested GPU or library is not available; there is no fallback.
    """
    if name not in ENCODERS:
        raise UsageError(f"there is no encoder {name!r}", expected="one of " + ", ".join(ENCODERS))
    folder = bundle / "encoder"
    if name.startswith("tensorrt"):
        from fllm_export.engines.tensorrt.encoder import TensorRtEncoder

        return TensorRtEncoder(folder / "plans", name.partition("-")[2] or None, dim)
    model = folder / "model.onnx"
    if name == "cpu" and (folder / CPU_MODEL).is_file():
        model = folder / CPU_MODEL
    if not model.is_file():
        raise BundleError(f"{model} is missing", expected="the exported encoder", fix="Build the bundle again")
    return OnnxItemModel(cuda_session(model) if name == "cuda" else cpu_session(model, threads))
