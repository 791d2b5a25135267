"""The head graph of one node, against the head graphs that it stands in for and the plugin's own source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import onnx
import pytest

from fllm_export.errors import UsageError
from fllm_export.graphs.head import HeadForm, head_graph
from fllm_export.graphs.plugin_head import (
    MAX_DIM,
    PLUGIN,
    PLUGIN_NAMESPACE,
    PLUGIN_VERSION,
    plugin_head_graph,
)

LIBRARY = Path(__file__).parents[2] / "engines" / "libfllm"


def signature(values: Any) -> dict[str, tuple[int, list[Any]]]:
    """Return type and shape of each value by name."""
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        found[value.name] = (tensor.elem_type, [size.dim_param or size.dim_value for size in tensor.shape.dim])
    return found


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("form", "codes"), [("w8a8", "int8"), ("fp8", "fp8")])
def test_it_takes_and_gives_what_the_head_graph_does(form: HeadForm, codes: Literal["int8", "fp8"], bias: bool) -> None:
    plugin = plugin_head_graph(codes, dim=64, k=100, bias=bias)
    head = head_graph(form, dim=64, k=100, tile_rows=None, chunk_rows=1024, bias=bias)
    assert signature(plugin.graph.input) == signature(head.graph.input)
    assert signature(plugin.graph.output) == signature(head.graph.output)


def test_it_is_one_node_that_a_parser_finds_the_plugin_by() -> None:
    (node,) = plugin_head_graph("int8", dim=64, k=100, bias=True).graph.node
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert (node.op_type, node.domain) == ("FllmScan", "fllm")
    assert attributes == {"k": 100, "plugin_version": b"1", "plugin_namespace": b"fllm"}
    assert list(node.input) == ["codes", "scales", "valid_rows", "item_vector", "bias"]
    assert list(node.output) == ["scores", "rows", "m", "l"]


def test_the_same_request_gives_the_same_bytes() -> None:
    first, second = (plugin_head_graph("fp8", dim=64, k=10, bias=True).SerializeToString() for _ in range(2))
    assert first == second


def test_names_and_limits_are_the_plugins() -> None:
    header = (LIBRARY / "plugin" / "scan_plugin.hpp").read_text()
    named = dict(re.findall(r'kPlugin(\w+) = "(.+)";', header))
    assert named == {"Name": PLUGIN, "Version": PLUGIN_VERSION, "Namespace": PLUGIN_NAMESPACE}
    assert f"kMaxDim = {MAX_DIM};" in (LIBRARY / "cuda" / "wave.hpp").read_text()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"codes": "fp16"}, "with fp16 codes; expected int8 or fp8"),
        ({"dim": 0}, "dim is 0"),
        ({"dim": MAX_DIM + 1}, "expected 1 to 16384"),
        ({"k": 0}, "k is 0"),
    ],
)
def test_what_cannot_be_scanned_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(text)):
        plugin_head_graph(**{"codes": "int8", "dim": 64, "k": 10, "bias": False, **change})
