"""The mapper: from the encoder's pooled hidden state x to the item vector z, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from fllm_export.checkpoint.spec import MapperKind
from fllm_export.checkpoint.tensors import FloatArray, open_tensors
from fllm_export.errors import BundleError, UsageError
from fllm_export.files import publish

HEAD_FILE = "head.safetensors"
PREFIX = "mapper."

_NAMES: dict[MapperKind, tuple[str, ...]] = {
    "identity": (),
    "linear": ("weight", "bias"),
    "linear_relu": ("weight", "bias"),
    "mlp": ("0.weight", "0.bias", "2.weight", "2.bias"),
}


@dataclass(frozen=True, eq=False)
class Mapper:
    """z = x (``identity``), W x + b (``linear``), relu(W x + b) (``linear_relu``), W2 relu(W1 x + b1) + b2 (``mlp``).

    Attributes:
        kind: which of the four.
        weights: float32 arrays by name, without the prefix ``mapper.``: ``weight`` [d, h] and ``bias`` [d], or
            ``0.weight`` [m, h], ``0.bias`` [m], ``2.weight`` [d, m] and ``2.bias`` [d] for the mlp; none for identity.
        source: the file that the weights came from, named in messages.

    Raises:
        BundleError: a weight is missing or unknown, or has a wrong shape, or holds a NaN.
    """

    kind: MapperKind
    weights: Mapping[str, FloatArray] = field(default_factory=dict, repr=False)
    source: str = "the mapper"

    def __post_init__(self) -> None:
        if self.kind not in _NAMES:
            raise UsageError(f"the mapper kind is {self.kind!r}", expected="one of " + ", ".join(_NAMES))
        check_names(self.kind, self.weights, self.source)
        object.__setattr__(self, "weights", {k: np.asarray(v, np.float32) for k, v in self.weights.items()})
        for name in (n for n in _NAMES[self.kind] if n.endswith("weight")):
            self._check_layer(name, name.replace("weight", "bias"))
        if self.kind == "mlp" and self.weights["2.weight"].shape[1] != self.weights["0.weight"].shape[0]:
            raise BundleError(
                f"{self.source}: {PREFIX}2.weight has the shape {list(self.weights['2.weight'].shape)}",
                expected=f"[any, {self.weights['0.weight'].shape[0]}], the rows of {PREFIX}0.weight",
            )

    @property
    def hidden(self) -> int | None:
        """Dimensions h of the input; None when the kind is identity, which takes any."""
        return None if self.kind == "identity" else int(self.weights[_NAMES[self.kind][0]].shape[1])

    @property
    def dim(self) -> int | None:
        """Dimensions d of the output; None when the kind is identity."""
        return None if self.kind == "identity" else int(self.weights[_NAMES[self.kind][-1]].shape[0])

    def apply(self, x: FloatArray) -> FloatArray:
        """Return z, float32 [B, d], of the pooled states x, float32 [B, h]."""
        if self.kind == "identity":
            return x
        first, bias = (self.weights[name] for name in _NAMES[self.kind][:2])
        z: FloatArray = x @ first.T + bias
        if self.kind != "linear":
            z = np.maximum(z, np.float32(0))
        if self.kind == "mlp":
            z = z @ self.weights["2.weight"].T + self.weights["2.bias"]
        return z

    def then(self, matrix: npt.NDArray[np.floating]) -> Mapper:
        """Return the mapper to ``matrix`` z, with the matrix [m, d] folded into the last layer.

        An identity becomes ``linear``, and ``linear_relu``, whose last step is not linear, an ``mlp``.

        Raises:
            UsageError: the matrix does not take this mapper's output.
        """
        if matrix.ndim != 2 or self.dim not in (None, matrix.shape[1]):
            raise UsageError(f"the matrix has the shape {list(matrix.shape)}", expected=f"[m, {self.dim or 'h'}]")
        old, narrow, none = self.weights, matrix.astype(np.float32), np.zeros(len(matrix), np.float32)
        if self.kind == "identity":
            return Mapper("linear", {"weight": narrow, "bias": none}, self.source)
        if self.kind == "linear_relu":
            layers = {"0.weight": old["weight"], "0.bias": old["bias"], "2.weight": narrow, "2.bias": none}
            return Mapper("mlp", layers, self.source)
        wide = matrix.astype(np.float64)
        last = {name: (wide @ old[name]).astype(np.float32) for name in _NAMES[self.kind][-2:]}
        return Mapper(self.kind, {**old, **last}, self.source)

    @classmethod
    def read(cls, path: Path, kind: MapperKind) -> Mapper:
        """Read a mapper of the declared kind from ``head.safetensors``; any of bf16, fp16, fp32, fp64.

        Raises:
            BundleError: the file is damaged, or its tensors are not those of the kind.
        """
        stored = open_tensors(path)
        foreign = sorted(name for name in stored if not name.startswith(PREFIX))
        if foreign:
            raise BundleError(
                f"{path} has the unknown tensor {foreign[0]!r}", expected=f"tensors whose names begin with {PREFIX}"
            )
        by_name = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items()}
        check_names(kind, by_name, str(path))
        for name, tensor in by_name.items():
            tensor.expect((None, None) if name.endswith("weight") else (None,))
        return cls(kind, {name: tensor.read() for name, tensor in by_name.items()}, str(path))

    def write(self, path: Path) -> None:
        """Write the weights as ``head.safetensors``, float32; the caller leaves the file out for identity."""
        tensors = {PREFIX + name: np.ascontiguousarray(value) for name, value in self.weights.items()}
        with publish(path) as file:
            file.write(save(tensors))

    def _check_layer(self, weight: str, bias: str) -> None:
        w, b = self.weights[weight], self.weights[bias]
        if w.ndim != 2 or 0 in w.shape:
            raise BundleError(f"{self.source}: {PREFIX}{weight} has the shape {list(w.shape)}", expected="[d, h]")
        if b.shape != (w.shape[0],):
            raise BundleError(
                f"{self.source}: {PREFIX}{bias} has the shape {list(b.shape)}",
                expected=f"[{w.shape[0]}], the rows of {PREFIX}{weight}",
            )
        for name, value in ((weight, w), (bias, b)):
            if not np.isfinite(value).all():
                raise BundleError(
                    f"{self.source}: {PREFIX}{name} has a NaN or infinite number", expected="finite numbers only"
                )


def check_names(kind: MapperKind, found: Mapping[str, object], source: str) -> None:
    """Check that ``found`` has exactly the weights of a mapper of this kind.

    Raises:
        BundleError: naming the first weight that is missing or unknown.
    """
    wanted = _NAMES[kind]
    expected = "no tensors" if not wanted else ", ".join(PREFIX + name for name in wanted)
    expected += f" for the mapper kind {kind}"
    fix = "Correct the file, or declare the mapper kind that it holds"
    missing = [name for name in wanted if name not in found]
    if missing:
        held = ", ".join(PREFIX + name for name in sorted(found)) or "nothing"
        found_words = f"{source} lacks the tensor '{PREFIX}{missing[0]}' and holds {held}"
        raise BundleError(found_words, expected=expected, fix=fix)
    unknown = sorted(set(found) - set(wanted))
    if unknown:
        raise BundleError(f"{source} has the tensor '{PREFIX}{unknown[0]}'", expected=expected, fix=fix)
