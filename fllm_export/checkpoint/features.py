"""Features: the steps between pooling and mapper of a sentence-transformers model, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.checkpoint.feature_spec import ACTIVATIONS, Activation, FeatureSpec
from fllm_export.checkpoint.tensors import FloatArray
from fllm_export.errors import BundleError, UsageError

TINY = float(np.finfo(np.float32).tiny)
"""The least length by which a vector is divided, so that the zero vector stays the zero vector."""


def unit_vectors(x: FloatArray) -> FloatArray:
    """Return x / |x|, float32 [..., n]; the zero vector stays zero.

    x is divided by its largest magnitude first. So neither very long nor very short vectors overflow or vanish where
    their squares are summed.
    """
    scaled = x / np.maximum(np.abs(x).max(-1, keepdims=True, initial=0.0), np.float32(TINY))
    length = np.sqrt(np.square(scaled).sum(-1, keepdims=True))
    unit: FloatArray = scaled / np.maximum(length, np.float32(TINY))
    return unit


_complement = np.vectorize(math.erfc, otypes=[np.float64])


def _gelu(x: FloatArray) -> FloatArray:
    wide = x.astype(np.float64)
    exact: FloatArray = (wide * 0.5 * _complement(-wide / math.sqrt(2))).astype(np.float32)
    return exact


_ACTIVATIONS: dict[Activation, Callable[[FloatArray], FloatArray]] = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "gelu": _gelu,
    "sigmoid": lambda x: np.exp(-np.logaddexp(np.float32(0), -x)),
}


@dataclass(frozen=True)
class Normalize:
    """x becomes x / |x|, as :func:`unit_vectors` computes it."""

    @property
    def spec(self) -> FeatureSpec:
        """The step without weights."""
        return FeatureSpec("normalize")

    def apply(self, x: FloatArray) -> FloatArray:
        """Return x / |x|, float32 [B, n]."""
        return unit_vectors(x)


@dataclass(frozen=True, eq=False)
class Dense:
    """x becomes activation(W x + b).

    Attributes:
        weight: W, float32 [out, in].
        bias: b, float32 [out].
        activation: one of :data:`fllm_export.checkpoint.feature_spec.ACTIVATIONS`.
        name: what messages call the layer.

    Raises:
        BundleError: a shape is wrong, or a number is NaN or infinite.
        UsageError: there is no such activation.
    """

    weight: FloatArray
    bias: FloatArray
    activation: Activation = "identity"
    name: str = "the dense step"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UsageError(
                f"{self.name}: the activation is {self.activation!r}", expected="one of " + ", ".join(ACTIVATIONS)
            )
        weight = np.asarray(self.weight, np.float32)
        if weight.ndim != 2 or 0 in weight.shape:
            raise BundleError(f"{self.name}: weight has the shape {list(weight.shape)}", expected="[out, in]")
        bias = np.asarray(self.bias, np.float32)
        if bias.shape != (len(weight),):
            raise BundleError(
                f"{self.name}: bias has the shape {list(bias.shape)}", expected=f"[{len(weight)}], the rows of weight"
            )
        for part, value in (("weight", weight), ("bias", bias)):
            if not np.isfinite(value).all():
                raise BundleError(f"{self.name}: {part} has a NaN or infinite number", expected="finite numbers only")
            object.__setattr__(self, part, value)

    @property
    def spec(self) -> FeatureSpec:
        """The step without weights."""
        return FeatureSpec("dense", self.activation)

    @property
    def tensors(self) -> dict[str, FloatArray]:
        """The tensors ``weight`` and ``bias``."""
        return {"weight": self.weight, "bias": self.bias}

    def apply(self, x: FloatArray) -> FloatArray:
        """Return activation(W x + b), float32 [B, out], of x, float32 [B, in]."""
        return _ACTIVATIONS[self.activation](x @ self.weight.T + self.bias)


Step = Normalize | Dense


@dataclass(frozen=True, eq=False)
class Features:
    """The steps in the order in which they are applied to the pooled state; none for most models.

    Attributes:
        steps: :class:`Normalize` and :class:`Dense`.
        source: the file that the weights came from, named in messages.

    Raises:
        BundleError: a dense step does not take what the one before it makes.
    """

    steps: tuple[Step, ...] = ()
    source: str = "the features"

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        self.width(None)

    def __bool__(self) -> bool:
        """Return whether there is a step."""
        return bool(self.steps)

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """The steps as ``filterllm.json`` lists them."""
        return tuple(step.spec for step in self.steps)

    @property
    def tensors(self) -> dict[str, FloatArray]:
        """The weights by name: ``0.weight`` is the weight of the first step."""
        dense = [(i, step) for i, step in enumerate(self.steps) if isinstance(step, Dense)]
        return {f"{i}.{name}": value for i, step in dense for name, value in step.tensors.items()}

    def width(self, hidden: int | None) -> int | None:
        """Return the dimensions of the output for pooled states of ``hidden`` dimensions.

        Args:
            hidden: None where it is not known. The result is then None too, unless a dense step decides it.

        Raises:
            BundleError: a dense step takes vectors of other dimensions than the ones it gets.
        """
        width = hidden
        for i, step in enumerate(self.steps):
            if not isinstance(step, Dense):
                continue
            made, taken = step.weight.shape
            if width not in (None, taken):
                raise BundleError(
                    f"{self.source}: features.{i}.weight has the shape {[made, taken]}",
                    expected=f"[any, {width}], the dimensions of the vectors that it gets",
                )
            width = made
        return width

    def apply(self, x: FloatArray) -> FloatArray:
        """Return the features, float32 [B, width], of pooled states x, float32 [B, hidden]."""
        for step in self.steps:
            x = step.apply(x)
        return x

    @classmethod
    def of(
        cls, specs: Sequence[FeatureSpec], tensors: Mapping[str, npt.NDArray[np.floating[Any]]], source: str
    ) -> Features:
        """Put steps and weights together.

        Args:
            specs: the steps.
            tensors: the weights by name, such as ``0.weight``; exactly those of :func:`tensor_names`.
            source: the file that they came from.

        Raises:
            BundleError: the weights of a step have wrong shapes, or do not take what the step before makes.
        """
        steps: list[Step] = []
        for i, spec in enumerate(specs):
            if spec.kind == "normalize":
                steps.append(Normalize())
                continue
            weight, bias = (np.asarray(tensors[name], np.float32) for name in (f"{i}.weight", f"{i}.bias"))
            steps.append(Dense(weight, bias, spec.activation or "identity", f"{source}: features.{i}"))
        return cls(tuple(steps), source)


def tensor_names(specs: Sequence[FeatureSpec]) -> list[str]:
    """Return the names of the weights that these steps have, such as ``0.weight``."""
    return [f"{i}.{name}" for i, spec in enumerate(specs) if spec.kind == "dense" for name in ("weight", "bias")]
