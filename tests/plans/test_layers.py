"""The builder's log is read, and a table that is copied is found out."""

from __future__ import annotations

import pytest

from fllm_export.errors import ParityError
from fllm_export.plans.layers import Layer, read_layers, table_is_fused

QUERY, TABLE = ("query", "Int8"), ("codes", "Int8")
PRODUCT = Layer("product", "gemm", (QUERY, TABLE))


def tensor(name: str, kind: str) -> str:
    return f"{{ Name: {name}, Dimensions: [-1,64], Strides: [64,1], Datatype: {kind}, Format: (Linear) Row major }}"


def test_layers_are_read_from_the_log() -> None:
    product = f"Name: a_0, LayerType: gemm, Inputs: [ {tensor('q', 'Int8')}, {tensor('codes', 'Int8')}], "
    log = ["Layers:\n" + product + "Constants: [ ], Outputs: [ ], StreamId: 0", "something else", "Name: no layer"]
    assert read_layers(log) == [Layer("a_0", "gemm", (("q", "Int8"), ("codes", "Int8")))]


def test_one_product_in_8_bits_is_what_is_wanted() -> None:
    assert table_is_fused([PRODUCT, Layer("tail", "kgen", (("out", "Float"),))], "int8_limbs") is True
    assert table_is_fused([], "int8_limbs") is None


@pytest.mark.parametrize(
    "layers",
    [
        [Layer("copy", "kgen", (TABLE,)), Layer("product", "gemm", (QUERY, ("copied", "Int8")))],
        [Layer("copy", "kgen", (TABLE,)), PRODUCT],
        [Layer("product", "gemm", (("query", "Half"), TABLE))],
        [Layer("product", "gemm", (QUERY, ("table", "Int8")))],
    ],
)
def test_a_copy_or_a_wider_product_is_refused(layers: list[Layer]) -> None:
    with pytest.raises(ParityError, match="expected one product"):
        table_is_fused(layers, "int8_limbs")
