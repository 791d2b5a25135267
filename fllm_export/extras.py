"""Modules that stand on an extra of the package, imported when they are needed, and which packages there are."""

from __future__ import annotations

import importlib
from typing import Any

from fllm_export.errors import HardwareError


def require(module: str, extra: str | None = None) -> Any:
    """Import a module that stands on an extra.

    Args:
        module: its full name.
        extra: the extra, where it is not one that building needs.

    Raises:
        HardwareError: a package of the extra is missing.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("fllm_export"):
            raise
        work = "building" if extra is None else f"`{module}`"
        extra = extra or ("optimum" if module.endswith("optimum") else "build")
        raise HardwareError(
            f"{work} needs the package `{error.name}`, which is not installed",
            fix=f"Run pip install 'fllm-export[{extra}]'",
        ) from error


def package_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    # Imported here: it takes longer than the rest of a start, and most starts need no version.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
