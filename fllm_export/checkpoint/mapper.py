"""The mapper: from the features x of an item to the item vector z, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fllm_export.checkpoint.features import unit_vectors
from fllm_export.checkpoint.spec import MapperKind
from fllm_export.checkpoint.tensors import FloatArray
from fllm_export.errors import BundleError, UsageError

PREFIX = "mapper."

LARGEST_EXPONENT = 88.0
"""The largest exponent that a ``kernel`` may reach: exp(88.7) is more than float32 can hold."""

_NAMES: dict[MapperKind, tuple[str, ...]] = {
    "identity": (),
    "linear": ("weight", "bias"),
    "linear_relu": ("weight", "bias"),
    "mlp": ("0.weight", "0.bias", "2.weight", "2.bias"),
    "kernel": ("0.weight", "0.bias", "2.weight", "2.bias"),
}
_TWO_LAYERS = ("mlp", "kernel")


@dataclass(frozen=True, eq=False)
class Mapper:
    """z as a function of x.

    The kinds are ``identity`` (x), ``linear`` (W x + b), ``linear_relu`` (relu(W x + b)), ``mlp``
    (W2 relu(W1 x + b1) + b2) and ``kernel`` (W2 exp(W1 x/|x| + b1) + b2).

    ``kernel`` holds Nystrom features (Williams and Seeger, NIPS 2000) of the Gaussian kernel
    k(a, b) = exp(g (a.b - 1)) of unit vectors: with landmarks L [m, h] at unit length, W1 = g L, b1 = -g and
    W2 = K_LL^(-1/2), or any matrix times it. An exponent w.u + b is at most |w| + b, because u has unit length.

    Attributes:
        kind: one of the five.
        weights: float32 arrays by name, without the prefix ``mapper.``: ``weight`` [d, h] and ``bias`` [d], or
            ``0.weight`` [m, h], ``0.bias`` [m], ``2.weight`` [d, m] and ``2.bias`` [d] for mlp and kernel; none for
            identity.
        source: the file that the weights came from, named in messages.

    Raises:
        BundleError: a weight is missing or unknown, or has a wrong shape, or holds a NaN, or an exponent of a kernel
            can be so large that float32 overflows.
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
        if self.kind in _TWO_LAYERS and self.weights["2.weight"].shape[1] != self.weights["0.weight"].shape[0]:
            raise BundleError(
                f"{self.source}: {PREFIX}2.weight has the shape {list(self.weights['2.weight'].shape)}",
                expected=f"[any, {self.weights['0.weight'].shape[0]}], the rows of {PREFIX}0.weight",
            )
        if self.kind == "kernel":
            self._check_exponents()

    @property
    def hidden(self) -> int | None:
        """Dimensions h of the input; None when the kind is identity, which takes any."""
        return None if self.kind == "identity" else int(self.weights[_NAMES[self.kind][0]].shape[1])

    @property
    def inner(self) -> int | None:
        """Dimensions m between the two layers of mlp and kernel; None for the other kinds."""
        return int(self.weights["0.bias"].shape[0]) if self.kind in _TWO_LAYERS else None

    @property
    def dim(self) -> int | None:
        """Dimensions d of the output; None when the kind is identity."""
        return None if self.kind == "identity" else int(self.weights[_NAMES[self.kind][-1]].shape[0])

    def apply(self, x: FloatArray) -> FloatArray:
        """Return z, float32 [B, d], of the features x, float32 [B, h]."""
        if self.kind == "identity":
            return x
        first, bias = (self.weights[name] for name in _NAMES[self.kind][:2])
        z: FloatArray = (unit_vectors(x) if self.kind == "kernel" else x) @ first.T + bias
        if self.kind == "kernel":
            z = np.exp(z)
        elif self.kind != "linear":
            z = np.maximum(z, np.float32(0))
        if self.kind in _TWO_LAYERS:
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

    def _check_exponents(self) -> None:
        rows, bias = self.weights["0.weight"], self.weights["0.bias"]
        largest = np.linalg.norm(rows.astype(np.float64), axis=1) + bias
        row = int(np.argmax(largest))
        if largest[row] > LARGEST_EXPONENT:
            raise BundleError(
                f"{self.source}: the exponent of row {row} of {PREFIX}0.weight can be {largest[row]:.1f}",
                expected=f"at most {LARGEST_EXPONENT:g}, the row's length plus its bias, so that exp does not overflow",
                fix="Subtract a number from this bias, and multiply its column of mapper.2.weight by exp of it",
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
