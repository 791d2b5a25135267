"""The compiled module ``_core``, of the same interface as these Python sources.

In a checkout the two come from different places: the sources change with every pull, the module when it is built.
"""

from __future__ import annotations

from pathlib import Path

from fllm_export.errors import HardwareError

try:
    import fllm_export._core as _core
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{Path(__file__).parent} holds Python sources without the compiled module: it is a checkout, which hides an "
        "installed fllm-export from programs that are started in it. Start Python in another directory, or install the "
        "checkout in place: pip install -e .",
        name=error.name,
    ) from error

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
