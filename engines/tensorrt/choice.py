"""Which of a bundle's plans runs on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fllm_export.engines.tensorrt import library as libraries
from fllm_export.engines.tensorrt.library import LIBRARIES, Library
from fllm_export.engines.tensorrt.plan import Plan, check_plan, read_plans
from fllm_export.errors import FllmError, HardwareError


def choose_plan(folder: Path, rank: Callable[[Plan], int | None]) -> tuple[Library, Plan]:
    """Return the plan to run and the library that loads it.

    Args:
        folder: ``encoder/plans`` or ``head/plans`` of a bundle.
        rank: gives each plan that will do its place, the lowest first, and None to the others.

    Raises:
        HardwareError: there is no plan, or none for this GPU and this version; the message says which there is and how
            to build it anew.
        BundleError: a plan is damaged.
    """
    bundle = folder.parent.parent
    rebuild = f"fllm-export build {bundle} --engine tensorrt"
    plans = [plan for plan in read_plans(folder) if rank(plan) is not None]
    if not plans:
        raise HardwareError(f"{folder} has no TensorRT plan for this", fix=f"Run: {rebuild}")
    installed = _installed()
    architecture = libraries.current_architecture()
    refusals: list[FllmError] = []
    for plan in sorted(plans, key=lambda plan: rank(plan) or 0):
        # A plan of a library that is not here is compared with the one that is.
        library = installed.get(plan.library) or next(iter(installed.values()))
        try:
            check_plan(folder, plan, library, architecture, rebuild)
        except HardwareError as error:
            refusals.append(error)
            continue
        return library, plan
    raise refusals[0]


def _installed() -> dict[str, Library]:
    """Return the libraries that can be loaded, by name; an error when there is none."""
    found: dict[str, Library] = {}
    for name in LIBRARIES:
        try:
            found[name] = libraries.open_library(name)
        except HardwareError:
            continue
    if not found:
        libraries.open_library()
    return found
