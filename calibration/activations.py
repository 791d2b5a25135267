"""How large the activations of an encoder get on real item texts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.onnx_session import cpu_session

IdsAndMask = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def activation_peaks(
    model: Path, tensors: Sequence[str], batches: Iterable[IdsAndMask], threads: int
) -> dict[str, float]:
    """Return the largest magnitude that each tensor of an encoder takes.

    Args:
        model: the encoder, ONNX, in float32.
        tensors: names of float32 tensors inside it.
        batches: token ids and attention mask, int64 [batch, sequence] each.
        threads: threads of ONNX Runtime.

    Raises:
        BundleError: ONNX Runtime cannot read the model.
    """
    import onnx

    # The weights stay where they are: the changed graph stands beside them for a moment and names them as before.
    graph = onnx.load(model, load_external_data=False)
    known = {output.name for output in graph.graph.output} | {value.name for value in graph.graph.input}
    wanted = [name for name in tensors if name not in known]
    graph.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in wanted)
    peaks = dict.fromkeys(tensors, 0.0)
    with tempfile.NamedTemporaryFile(dir=model.parent, suffix=".onnx") as file:
        file.write(graph.SerializeToString())
        file.flush()
        session = cpu_session(Path(file.name), threads)
        for ids, mask in batches:
            values = session.run(list(peaks), {"input_ids": ids, "attention_mask": mask})
            for name, value in zip(peaks, values, strict=True):
                peaks[name] = max(peaks[name], float(np.abs(value).max(initial=0.0)))
    return peaks
