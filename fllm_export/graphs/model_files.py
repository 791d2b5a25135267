"""Writing a large ONNX model: cleaned of its exporter's traces, checked, and published all or nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from fllm_export.errors import BundleError
from fllm_export.files import sync_directory

EXTERNAL_DATA_BYTES = 3 << 29
"""Weights beyond 1.5 GiB go into a file of their own: a protobuf message ends at 2 GiB."""

_INLINE_BYTES = 1024


def external_data_path(path: Path) -> Path:
    """Return where the weights of the model at ``path`` lie when they are not inside it."""
    return path.with_name(path.name + ".data")


def publish_model(model: ir.Model, path: Path, *, external_data_bytes: int = EXTERNAL_DATA_BYTES) -> None:
    """Write ``model`` to ``path``, with weights beside it when they exceed ``external_data_bytes``.

    The same model gives the same bytes. Names of source files, stack traces and the like, which exporters leave
    in the metadata, are removed in place. A weights file of an earlier export at ``path`` is replaced or removed.

    Raises:
        BundleError: the ONNX checker or strict shape inference refuses the model; nothing is written then.
    """
    _clean(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    external = external_data_path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        if weights > external_data_bytes:
            ir.save(model, temporary, external_data=external.name, size_threshold_bytes=_INLINE_BYTES)
        else:
            ir.save(model, temporary)
        _check(temporary, path)
        # Weights first: the model, which names them, never appears without them.
        if (Path(folder) / external.name).exists():
            _move(Path(folder) / external.name, external)
            _move(temporary, path)
        else:
            _move(temporary, path)
            external.unlink(missing_ok=True)
    sync_directory(path.parent)


def _move(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.chmod(0o644)
    temporary.replace(path)


def _check(temporary: Path, path: Path) -> None:
    inferred = temporary.with_name("inferred.onnx")
    try:
        onnx.checker.check_model(temporary, full_check=True)
        onnx.shape_inference.infer_shapes_path(
            str(temporary), str(inferred), check_type=True, strict_mode=True, data_prop=True
        )
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(
            f"the exported graph {path.name} is not valid ONNX: {str(error).strip()}",
            expected="a graph that onnx.checker and strict shape inference accept",
            fix="Try the versions of torch, transformers and onnxscript in the constraints files",
        ) from error


def _clean(model: ir.Model) -> None:
    """Remove metadata and comments, which hold absolute paths and differ between machines."""
    _clear(model)
    for graph in model.graphs():
        _clear(graph)
        for value in (*graph.inputs, *graph.initializers.values()):
            _clear(value)
            if value.const_value is not None:
                _clear(value.const_value)
        for node in graph:
            _clear(node)
            for value in node.outputs:
                _clear(value)


def _clear(owner: Any) -> None:
    owner.metadata_props.clear()
    # Tensors read from a file have no setter, and no text either.
    if owner.doc_string:
        owner.doc_string = None
