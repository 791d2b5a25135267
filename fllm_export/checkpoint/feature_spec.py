"""One entry of the list ``features`` in ``filterllm.json``: a step between pooling and mapper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from fllm_export.errors import BundleError

StepKind = Literal["normalize", "dense"]
Activation = Literal["identity", "tanh", "relu", "gelu", "sigmoid"]

STEP_KINDS: tuple[StepKind, ...] = get_args(StepKind)
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

_KIND, _ACTIVATION = "kind", "activation"


@dataclass(frozen=True)
class FeatureSpec:
    """A step without its weights.

    Attributes:
        kind: ``normalize`` (x / |x|) or ``dense`` (activation(W x + b)).
        activation: what follows W x + b; None for ``normalize``. ``gelu`` is x times the normal distribution's
            cumulative function (the exact form, by erf), not its approximation by tanh.
    """

    kind: StepKind
    activation: Activation | None = None

    def __str__(self) -> str:
        """Return the words of model cards, such as ``dense tanh``."""
        return self.kind if self.activation in (None, "identity") else f"{self.kind} {self.activation}"

    def to_json(self) -> dict[str, str]:
        """Return the entry of ``filterllm.json``."""
        return {_KIND: self.kind} if self.activation is None else {_KIND: self.kind, _ACTIVATION: self.activation}

    @classmethod
    def from_json(cls, entry: object, place: str) -> FeatureSpec:
        """Check an entry and return the step.

        Args:
            entry: as JSON gave it.
            place: the file and the entry's number, named in messages.

        Raises:
            BundleError: it is not an object, or has a wrong, missing or unknown key.
        """
        if not isinstance(entry, dict):
            raise BundleError(f"{place} is {entry!r}", expected=f"an object with the key {_KIND!r}")
        kind = _one_of(entry, _KIND, STEP_KINDS, place)
        known = {_KIND, _ACTIVATION} if kind == "dense" else {_KIND}
        unknown = sorted(set(entry) - known)
        if unknown:
            raise BundleError(
                f"{place} has the unknown key {unknown[0]!r}",
                expected=f"only {' and '.join(sorted(known))} for the kind {kind}",
                fix="Remove the key, or correct its spelling",
            )
        return cls(kind) if kind == "normalize" else cls(kind, _one_of(entry, _ACTIVATION, ACTIVATIONS, place))


def read_features(entries: object, source: str) -> tuple[FeatureSpec, ...]:
    """Check the whole list and return its steps.

    Raises:
        BundleError: it is not a list with at least one entry, or an entry is wrong.
    """
    if not isinstance(entries, list) or not entries:
        raise BundleError(
            f"{source}: features is {entries!r}",
            expected="a list of at least one step",
            fix="Remove the key when no step is between pooling and mapper",
        )
    return tuple(FeatureSpec.from_json(entry, f"{source}: features[{i}]") for i, entry in enumerate(entries))


def _one_of(entry: dict[str, Any], key: str, choices: tuple[Any, ...], place: str) -> Any:
    if entry.get(key) not in choices or not isinstance(entry[key], str):
        found = f"{key} is {entry[key]!r}" if key in entry else f"the key {key!r} is missing"
        raise BundleError(f"{place}: {found}", expected="one of " + ", ".join(choices))
    return entry[key]
