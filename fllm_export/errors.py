"""The errors a caller may meet, one class per cause.

Every message answers three questions: what was found, what was expected and what to do about it.
"""

from __future__ import annotations


class FllmError(Exception):
    """Base of every error that fllm-export raises on purpose.

    Args:
        found: what was found, naming the file, tensor or argument.
        expected: what would have been accepted.
        fix: what the reader can do about it.
    """

    def __init__(self, found: str, *, expected: str | None = None, fix: str | None = None) -> None:
        self.found = found
        self.expected = expected
        self.fix = fix
        parts = [found.rstrip(".")]
        if expected is not None:
            parts.append(f"expected {expected.rstrip('.')}")
        message = "; ".join(parts) + "."
        if fix is not None:
            message += f" {fix.rstrip('.')}."
        super().__init__(message)


class UsageError(FllmError):
    """A request is invalid, for example for more users than the table holds."""


class BundleError(FllmError):
    """A bundle, table, checkpoint or data file is damaged, incomplete or of an unknown version."""


class ParityError(FllmError):
    """Two computations that must agree differ, or the recall of a ranking is below the required value."""


class HardwareError(FllmError):
    """A device, an instruction set, a library or an optional extra is not available."""


class BudgetError(FllmError):
    """The work would exceed the available memory, disk or time."""
