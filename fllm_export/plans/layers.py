"""What the builder's log says about the layers of a plan: whether the table goes into an 8-bit product as it lies.

The engine inspector would tell the same and needs a driver; the verbose log needs none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fllm_export.errors import ParityError

_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], (?:Constants|Outputs):"
)
_TENSOR = re.compile(r"\{ Name: (?P<name>[^,]*), .*?Datatype: (?P<type>\w+)")


@dataclass(frozen=True)
class Layer:
    """A layer of a plan.

    Attributes:
        name: the builder's name for it.
        kind: ``gemm``, ``kgen`` (a generated pointwise or copying kernel), ``runtime_fusion`` and others.
        inputs: name and type of each tensor that it reads, constants apart.
    """

    name: str
    kind: str
    inputs: tuple[tuple[str, str], ...]


def read_layers(messages: Iterable[str]) -> list[Layer]:
    """Return the layers listed in a builder's verbose log; none when it lists none."""
    layers = []
    for line in "\n".join(messages).split("\n"):
        found = _LAYER.match(line)
        if found is not None:
            inputs = tuple((tensor["name"], tensor["type"]) for tensor in _TENSOR.finditer(found["inputs"]))
            layers.append(Layer(found["name"], found["kind"], inputs))
    return layers


def table_is_fused(layers: list[Layer], form: str, table: str = "codes") -> bool | None:
    """Return True when the table is read once, by a product in 8 bits; None when there are no layers to look at.

    Args:
        layers: those of a head plan.
        form: its form, for the message.
        table: name of the input with the codes.

    Raises:
        ParityError: the table is copied, expanded or read more than once; the message says by which layer.
    """
    if not layers:
        return None
    readers = [layer for layer in layers if any(name == table for name, _ in layer.inputs)]
    stored = {kind for layer in readers for name, kind in layer.inputs if name == table}
    eight_bit = sum(kind in stored for layer in readers for _, kind in layer.inputs)
    if len(readers) == 1 and readers[0].kind == "gemm" and eight_bit >= 2:
        return True
    read_by = ", ".join(f"{layer.kind} {layer.name}" for layer in readers) or "no layer"
    raise ParityError(
        f"the plan of the head {form} reads the user table by {read_by}",
        expected="one product that takes it in 8 bits as it lies",
        fix="Use another form of the head, or report the TensorRT version",
    )
