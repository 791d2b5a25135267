"""What the caller may choose about TensorRT plans."""

from __future__ import annotations

from dataclasses import dataclass

from fllm_export.engines.tensorrt.library import Library, LibraryName, open_library
from fllm_export.errors import UsageError
from fllm_export.graphs.precision_names import PRECISIONS, Precision

MOST_K = 1 << 16
"""Users that a head plan returns of a tile at most."""

_OLDEST = {"fp16": 80, "bf16": 80, "fp8": 89}
"""The oldest GPU that multiplies in a precision, as the number in its name."""


@dataclass(frozen=True)
class PlanOptions:
    """What the caller may choose about plans.

    Attributes:
        targets: architectures such as ``sm89``; none means the GPU at hand.
        precision: of the encoder's products.
        library: ``tensorrt`` or ``tensorrt_rtx``; None takes the first that is installed.
        k: users that a tile returns.
        max_batch: items of one call at most.
        threads: of the comparison on the CPU; None is every CPU.
        unchecked: whether plans are accepted of which something could not be checked.

    Raises:
        UsageError: a value is invalid.
    """

    targets: tuple[str, ...] = ()
    precision: Precision = "fp16"
    library: LibraryName | None = None
    k: int = 256
    max_batch: int = 32
    threads: int | None = None
    unchecked: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.targets, str):
            raise UsageError(f"the targets are {self.targets!r}", expected="a tuple of names")
        if self.precision not in PRECISIONS:
            raise UsageError(f"the precision is {self.precision!r}", expected="one of " + ", ".join(PRECISIONS))
        if not 1 <= self.k <= MOST_K:
            raise UsageError(f"k of the head plan is {self.k}", expected=f"from 1 to {MOST_K}")
        if self.max_batch < 1:
            raise UsageError(f"max_batch is {self.max_batch}", expected="at least 1")

    def resolve(self) -> tuple[Library, tuple[str, ...]]:
        """Return the library that builds and the GPUs it builds for, each once.

        Raises:
            HardwareError: the library is not installed, or the GPU at hand was meant and there is none.
            UsageError: a target is unknown, or does not multiply in the precision.
        """
        library = open_library(self.library)
        targets = tuple(dict.fromkeys(library.targets(self.targets)))
        check_precision(targets, self.precision, f"an encoder in {self.precision}", "Choose another --precision")
        return library, targets


def check_precision(targets: tuple[str, ...], precision: str, what: str, fix: str) -> None:
    """Compare GPUs with what they multiply.

    Args:
        targets: architectures such as ``sm89``.
        precision: ``fp16``, ``bf16`` or ``fp8``.
        what: what was requested, for the message.
        fix: for the message.

    Raises:
        UsageError: a target is too old for the precision.
    """
    oldest = _OLDEST[precision]
    for target in targets:
        if int(target.removeprefix("sm")) < oldest:
            raise UsageError(f"{what} was asked for on {target}", expected=f"sm{oldest} or later", fix=fix)
