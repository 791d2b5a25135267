"""The options of ``build`` that concern TensorRT plans, and what is printed of the plans."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from fllm_export.cli.output import Output, columns
from fllm_export.engines.tensorrt.library import LIBRARIES, LibraryName
from fllm_export.errors import UsageError
from fllm_export.graphs.precision_names import PRECISIONS, Precision

if TYPE_CHECKING:
    from fllm_export.bundle.bundle import Bundle


class PlanChoices(TypedDict):
    """What the options say, as click hands it over."""

    engine: str | None
    target: tuple[str, ...]
    precision: Precision
    library: LibraryName | None
    plan_k: int
    plan_batch: int


_OPTIONS = (
    click.option("--engine", type=click.Choice(["tensorrt"]), help="Also build plans for this engine."),
    click.option(
        "--target", multiple=True, help="GPU of the plans, such as sm89; may be repeated (default: this GPU)."
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="fp16",
        show_default=True,
        help="Precision of the encoder plan's products.",
    ),
    click.option(
        "--library",
        type=click.Choice(LIBRARIES),
        help="What builds the plans (default: the first that is installed).",
    ),
    click.option(
        "--plan-k", type=int, default=256, show_default=True, help="Users that a head plan returns of a tile."
    ),
    click.option("--plan-batch", type=int, default=32, show_default=True, help="Items that a plan takes at most."),
)


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of plans, collected in one argument ``plans``."""

    # The options that the command has already travel along with it.
    @functools.wraps(command)
    def collected(**arguments: Any) -> Any:
        choices = {name: arguments.pop(name) for name in PlanChoices.__annotations__}
        return command(plans=choices, **arguments)

    wrapped: Callable[..., Any] = collected
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def make_plans(output: Output, bundle: Bundle, choices: PlanChoices, calibration: Path | None) -> list[dict[str, Any]]:
    """Build the plans that were asked for, and return their records."""
    if choices["engine"] is None:
        return []
    from fllm_export.bundle.order import item_texts
    from fllm_export.bundle.plans import PlanOptions, add_plans

    options = PlanOptions(
        choices["target"],
        choices["precision"],
        choices["library"],
        choices["plan_k"],
        choices["plan_batch"],
    )
    texts = [] if calibration is None else list(item_texts(calibration).texts)
    return [plan.to_dict() for plan in add_plans(bundle, options, texts, output.progress)]


def check_source(is_bundle: bool, choices: PlanChoices, out: Path | None, calibration: Path | None) -> None:
    """Refuse a command line whose parts do not go together.

    Raises:
        UsageError: naming what is missing or of no use.
    """
    if is_bundle and choices["engine"] is None:
        raise UsageError("a bundle was given and no --engine", expected="a checkpoint, or an engine to build plans for")
    if is_bundle and out is not None:
        raise UsageError(
            "a bundle was given and --out", expected="no --out: plans are added to the bundle", fix="Leave it out"
        )
    if not is_bundle and (out is None or calibration is None):
        missing = "--out" if out is None else "--calibration"
        raise UsageError(f"a checkpoint was given without {missing}", expected="both --out and --calibration")


def plans_text(plans: list[dict[str, Any]]) -> str:
    """Return the records as a table."""
    fused = {True: "yes", False: "no", None: "-"}
    rows = [
        [plan["file"], plan["architecture"], f"{plan['library']} {plan['version']}", fused[plan["fused"]]]
        for plan in plans
    ]
    return columns(["plan", "GPU", "built by", "table in 8 bits, uncopied"], rows, left=4)
