"""The compiled module ``_core``, of the same interface as these Python sources.

In a checkout the two come from different places: the sources change with every pull, the module when it is built.
"""

from __future__ import annotations

import fllm_export._core as _core
from fllm_export.errors import HardwareError

INTERFACE = 2
"""Number of the interface of ``_core``: ``_core.interface`` of engines/libfllm/bindings/module.cpp is the same."""

__all__ = ["INTERFACE", "_core"]


def check_interface(found: int | None) -> None:
    """Check the number that a compiled module gives, None where it gives none.

    Raises:
        HardwareError: it is of another version than these sources.
    """
    if found != INTERFACE:
        raise HardwareError(
            f"the compiled module {_core.__file__} is of another version than fllm-export's Python sources: its "
            f"interface has {'no number' if found is None else f'the number {found}'}",
            expected=str(INTERFACE),
            fix="Install fllm-export again (in a checkout: pip install --no-build-isolation -e .)",
        )


check_interface(getattr(_core, "interface", None))
