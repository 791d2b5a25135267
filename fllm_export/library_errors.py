"""Failures of libfllm as the project's errors."""

from __future__ import annotations

from fllm_export.errors import BudgetError, BundleError, FllmError, HardwareError, UsageError

_ERRORS: dict[int, type[FllmError]] = {2: UsageError, 4: BundleError, 5: BudgetError, 6: HardwareError}


def translated(error: Exception) -> FllmError:
    """Return the project's error for ``_core.Error``; a status without one of its own is a bug, and raised as it is."""
    status, message = error.args
    if status not in _ERRORS:
        raise error
    return _ERRORS[status](message)
