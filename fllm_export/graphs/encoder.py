"""Export of the item encoder (HF encoder without LM head, pooling, features, mapper) to ONNX by torch.onnx."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes

from fllm_export.checkpoint.model import ItemEncoder
from fllm_export.errors import HardwareError, UsageError
from fllm_export.graphs.builder import OPSET
from fllm_export.graphs.model_files import EXTERNAL_DATA_BYTES, publish_model

IdsAndMask = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""``input_ids`` and ``attention_mask``, both int64 [batch, sequence]."""

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "item_vector"

_OPSETS = range(18, 23)


def export_encoder(
    encoder: ItemEncoder,
    path: Path,
    *,
    example: IdsAndMask,
    opset: int = OPSET,
    external_data_bytes: int = EXTERNAL_DATA_BYTES,
) -> None:
    """Write the encoder to ``path`` as ONNX; equal encoders and examples give equal bytes.

    Inputs are ``input_ids`` and ``attention_mask``, int64 [batch, sequence], both sizes free; the output is
    ``item_vector``, float32 [batch, d]. Weights beyond ``external_data_bytes`` are written to ``<path>.data``.

    Args:
        encoder: dense weights, float32, in evaluation mode.
        path: the file to write.
        example: a batch that is run once to trace the model; at least two tokens long.
        opset: ONNX opset; 23 and later are refused, because their RotaryEmbedding as exported fails for more
            than one item.
        external_data_bytes: from how many bytes on the weights go into a file of their own.

    Raises:
        UsageError: the encoder is in training mode, the example is too short or the opset is not supported.
        HardwareError: onnxscript is missing.
        BundleError: the exported graph is not valid.
    """
    ids, mask = check_request(encoder, example, opset)
    if importlib.util.find_spec("onnxscript") is None:
        raise HardwareError(
            "the package onnxscript is not installed",
            expected="this package, because torch uses it for the export",
            fix="Run pip install 'fllm-export[build]'",
        )
    sizes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("sequence", min=2)}
    with quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            encoder,
            (ids, mask),
            dynamo=True,
            opset_version=opset,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            # One set of named sizes for both inputs; separate ones would be free of each other.
            dynamic_shapes=(sizes, sizes),
            optimize=False,
            verbose=False,
        )
    if program is None:  # only without dynamo
        raise UsageError("torch.onnx.export returned nothing", expected="an ONNX program")
    _simplify(program.model)
    publish_model(program.model, path, external_data_bytes=external_data_bytes)


def _simplify(model: ir.Model) -> None:
    """Fold constants and drop what is left over, in place.

    torch's own ``optimize`` also matches rewrite rules at every node, in time quadratic in the number of nodes:
    minutes for 30 layers, for a tenth fewer nodes and no faster a session.
    """
    from onnxscript import optimizer

    optimizer.fold_constants(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.DeduplicateInitializersPass()(model)
    passes.CommonSubexpressionEliminationPass()(model)


def check_request(encoder: ItemEncoder, example: IdsAndMask, opset: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the example as tensors.

    Raises:
        UsageError: the encoder is in training mode, the example is too short or the opset is not supported.
    """
    if encoder.training:
        raise UsageError(
            "the encoder is in training mode", expected="evaluation mode", fix="Call encoder.eval() before the export"
        )
    if opset not in _OPSETS:
        raise UsageError(f"opset is {opset}", expected=f"{_OPSETS.start} to {_OPSETS.stop - 1}")
    ids, mask = example
    if ids.shape != mask.shape or ids.ndim != 2 or ids.shape[1] < 2:
        raise UsageError(
            f"the example has ids {list(ids.shape)} and mask {list(mask.shape)}",
            expected="equal shapes [batch, sequence] of at least two tokens",
        )
    return torch.from_numpy(ids), torch.from_numpy(mask)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Hold back what the exporter says about itself: optional torchvision, renamed sizes, its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
