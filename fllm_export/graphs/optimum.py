"""Export of the item encoder by Hugging Face's optimum-onnx, with pooling, features and mapper appended.

optimum-onnx 0.1 needs transformers below 4.58, so it needs its own environment; the extra ``optimum``
and ``constraints/optimum.txt`` describe it. The graph has the same inputs and output as the default export.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir
from onnx import GraphProto
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from fllm_export.checkpoint.model import ItemEncoder
from fllm_export.checkpoint.positions import Positions
from fllm_export.errors import BundleError, HardwareError, UsageError
from fllm_export.graphs.builder import OPSET, GraphBuilder
from fllm_export.graphs.encoder import INPUTS, OUTPUT, quiet_exporter
from fllm_export.graphs.item_vector import featured, mapped, pooled
from fllm_export.graphs.model_files import EXTERNAL_DATA_BYTES, publish_model

_STATES = "last_hidden_state"
_POSITIONS = "position_ids"
_TASK = "feature-extraction"
_SIZES = {"batch_size": "batch", "sequence_length": "sequence"}
_OPSETS = range(18, 21)


def export_encoder_optimum(
    encoder: ItemEncoder, path: Path, *, opset: int = OPSET, external_data_bytes: int = EXTERNAL_DATA_BYTES
) -> None:
    """Write the encoder to ``path`` as ONNX through optimum's ``main_export`` (task feature-extraction).

    Inputs and output are those of :func:`fllm_export.graphs.encoder.export_encoder`: what else optimum makes an
    input is computed in the graph, ``token_type_ids`` as zeros and ``position_ids`` by counting real tokens.

    Args:
        encoder: dense weights, float32, in evaluation mode.
        path: the file to write.
        opset: 18 to 20; optimum exports by TorchScript, which ends at 20.
        external_data_bytes: from how many bytes on the weights go into a file of their own.

    Raises:
        HardwareError: optimum-onnx is not installed.
        UsageError: the encoder is in training mode or the opset is not supported.
        BundleError: optimum's graph has inputs or outputs that are not known here, or is not valid.
    """
    _require_optimum()
    if encoder.training:
        raise UsageError(
            "the encoder is in training mode", expected="evaluation mode", fix="Call encoder.eval() before the export"
        )
    if opset not in _OPSETS:
        raise UsageError(f"opset is {opset}", expected=f"{_OPSETS.start} to {_OPSETS.stop - 1} with optimum")
    model = _hidden_states_model(cast(PreTrainedModel, encoder.encoder), encoder.positions, opset)
    _complete(model.graph, encoder)
    publish_model(ir.from_proto(model), path, external_data_bytes=external_data_bytes)


def _require_optimum() -> None:
    try:
        found = importlib.util.find_spec("optimum.exporters.onnx")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise HardwareError(
            "optimum-onnx is not installed",
            expected="the package optimum-onnx for the exporter optimum",
            fix="In its own environment, run pip install 'fllm-export[optimum]' -c constraints/optimum.txt",
        )


def _hidden_states_model(encoder: PreTrainedModel, positions: Positions, opset: int) -> onnx.ModelProto:
    from optimum.exporters.onnx import main_export

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with quiet_exporter(), tempfile.TemporaryDirectory(prefix="fllm-optimum-") as folder:
            encoder.save_pretrained(Path(folder) / "model")
            main_export(
                str(Path(folder) / "model"),
                Path(folder) / "onnx",
                task=_TASK,
                opset=opset,
                device="cpu",
                do_validation=False,
                library_name="transformers",
                local_files_only=True,
                custom_onnx_configs={"model": _onnx_config(encoder, positions)},
            )
            return onnx.load(Path(folder) / "onnx" / "model.onnx")
    finally:
        transformers_logging.set_verbosity(verbosity)


def _onnx_config(encoder: PreTrainedModel, positions: Positions) -> Any:
    """Return optimum's description of the encoder, with ``position_ids`` as an input where the encoder takes them."""
    from optimum.exporters.tasks import TasksManager

    make = TasksManager.get_exporter_config_constructor(
        "onnx", model=encoder, task=_TASK, library_name="transformers", model_type=encoder.config.model_type
    )
    config: Any = make(encoder.config)
    kind = type(config)
    if positions.given and _POSITIONS not in config.inputs:
        named = {_POSITIONS: {0: "batch_size", 1: "sequence_length"}}
        inputs = property(lambda self: {**kind.inputs.fget(self), **named})
        config.__class__ = type(kind.__name__, (kind,), {"inputs": inputs})
    return config


def _complete(graph: GraphProto, encoder: ItemEncoder) -> None:
    """Turn token ids -> hidden states into token ids -> item vector, in place."""
    before = GraphBuilder("inputs", prefix="fllm_inputs_")
    for extra in [value for value in graph.input if value.name not in INPUTS]:
        _replace_input(before, extra.name, encoder.positions)
        graph.input.remove(extra)
    if [output.name for output in graph.output] != [_STATES] or len(graph.input) != len(INPUTS):
        raise BundleError(
            f"optimum's graph has inputs {[v.name for v in graph.input]} and outputs {[v.name for v in graph.output]}",
            expected=f"{list(INPUTS)} and {[_STATES]}",
            fix="Use the versions in constraints/optimum.txt",
        )
    after = GraphBuilder("tail", prefix="fllm_tail_")
    x = featured(after, pooled(after, _STATES, INPUTS[1], encoder.pooling), encoder)
    after.named(OUTPUT, "Identity", mapped(after, x, encoder))
    before.splice_into(graph, 0)
    after.splice_into(graph, len(graph.node))
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["batch", _width(encoder)]))
    # Intermediate shapes carry the old names of the sizes and are inferred again when needed.
    del graph.value_info[:]
    for value in graph.input:
        for size in value.type.tensor_type.shape.dim:
            size.dim_param = _SIZES.get(size.dim_param, size.dim_param)


def _width(encoder: ItemEncoder) -> int:
    parts = (encoder.features, encoder.mapper)
    layers = [module for part in parts for module in part.modules() if isinstance(module, nn.Linear)]
    return layers[-1].out_features if layers else int(cast(PreTrainedModel, encoder.encoder).config.hidden_size)


def _replace_input(graph: GraphBuilder, name: str, positions: Positions) -> None:
    if name == "token_type_ids":
        graph.named(name, "Sub", INPUTS[0], INPUTS[0])
    elif name == _POSITIONS:
        _count_positions(graph, positions)
    else:
        raise BundleError(
            f"optimum's graph has the input {name!r}",
            expected="input_ids, attention_mask, token_type_ids or position_ids",
            fix="Use the default exporter torch for this model",
        )


def _count_positions(graph: GraphBuilder, positions: Positions) -> None:
    """Append what :meth:`Positions.ids` computes."""
    ids, mask = INPUTS
    axis = graph.constant(1, np.int64)
    if positions.uncounted is None:
        before = graph.op("Sub", graph.op("CumSum", mask, axis), graph.constant(1, np.int64))
        graph.named(_POSITIONS, "Max", before, graph.constant(0, np.int64))
        return
    uncounted = graph.constant(positions.uncounted, np.int64)
    other = graph.cast(graph.op("Not", graph.op("Equal", ids, uncounted)), np.int64)
    counted = graph.op("Mul", mask, other)
    graph.named(_POSITIONS, "Add", graph.op("Mul", graph.op("CumSum", counted, axis), counted), uncounted)
