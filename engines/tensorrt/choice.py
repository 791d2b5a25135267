"""Which of a bundle's plans runs on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fllm_export.engines.tensorrt import library as libraries
from fllm_export.engines.tensorrt.library import LIBRARIES, Library
from fllm_export.engines.tensorrt.plan import Plan, check_file, check_machine, read_plans
from fllm_export.errors import FllmError, HardwareError


def choose_plan(folder: Path, rank: Callable[[Plan], int | None], options: str) -> tuple[Library, Plan]:
    """Return the plan to run and the library that loads it. Files are looked at before a library or a GPU is.

    Args:
        folder: ``encoder/plans`` or ``head/plans`` of a bundle.
        rank: gives each plan that will do its place, the lowest first, and None to the others.
        options: of the command that builds such a plan, besides the bundle.

    Raises:
        HardwareError: there is no plan, or none for this GPU and this version; the message says which there is and how
            to build it again.
        BundleError: a plan or its record is damaged.
    """
    bundle = folder.parent.parent
    if not (bundle / "manifest.json").is_file():
        raise HardwareError(
            f"TensorRT needs a plan, and {bundle} is not a bundle",
            expected="a table inside a bundle",
            fix="Build a bundle, or use another engine",
        )
    rebuild = f"fllm-export plan {bundle}{options}"
    known = read_plans(folder)
    plans = sorted((plan for plan in known if rank(plan) is not None), key=lambda plan: rank(plan) or 0)
    if not plans:
        there = ", ".join(plan.file for plan in known) or "no plan at all"
        raise HardwareError(f"{folder} has no plan that is wanted (it has {there})", fix=f"Run: {rebuild}")
    for plan in plans:
        check_file(folder, plan, rebuild)
    installed = _installed()
    architecture = libraries.current_architecture()
    refusals: list[FllmError] = []
    for plan in plans:
        # A plan of a library that is not here is compared with the one that is.
        library = installed.get(plan.library) or next(iter(installed.values()))
        try:
            check_machine(folder, plan, library, architecture, rebuild)
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
