"""The options of ``build`` that concern TensorRT plans, and what is printed of the plans."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click
from click.core import ParameterSource

from fllm_export.cli.output import Output, columns
from fllm_export.engines.tensorrt.library import LIBRARIES, LibraryName
from fllm_export.errors import UsageError
from fllm_export.graphs.precision_names import PRECISIONS, Precision

if TYPE_CHECKING:
    from fllm_export.bundle.bundle import Bundle
    from fllm_export.plans.build import PlanOptions


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
    click.option("--target", multiple=True, help="GPU of the plans, such as sm89 (default: this GPU)."),
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


def make_plans(
    output: Output, bundle: Bundle, choices: PlanChoices, calibration: Path | None, threads: int | None
) -> list[dict[str, Any]]:
    """Build the plans that were asked for, and return their records."""
    if choices["engine"] is None:
        return []
    from fllm_export.item_texts import ItemTexts
    from fllm_export.plans.build import add_plans

    texts = [] if calibration is None else list(ItemTexts.load(calibration).texts)
    options = replace(_plan_options(choices), threads=threads)
    plans = add_plans(bundle.path, options, texts, output.progress)
    if plans[0].cosine is None:
        why = "a CPU does not run bf16" if texts else "give --calibration"
        output.say(f"the encoder in {plans[0].precision} was not compared with the float32 one: {why}")
    return [plan.to_dict() for plan in plans]


def _plan_options(choices: PlanChoices) -> PlanOptions:
    from fllm_export.plans.build import PlanOptions

    return PlanOptions(
        choices["target"],
        choices["precision"],
        choices["library"],
        choices["plan_k"],
        choices["plan_batch"],
    )


def check_source(is_bundle: bool, choices: PlanChoices, out: Path | None, calibration: Path | None) -> None:
    """Refuse a command line whose parts do not go together, and targets that cannot be built for.

    Raises:
        UsageError: naming what is missing or of no use.
        HardwareError: the library that builds plans is missing.
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
    idle = _given(_OF_CHECKPOINTS if is_bundle else _OF_PLANS if choices["engine"] is None else ())
    if idle:
        raise UsageError(
            f"{', '.join(idle)} has no effect here",
            expected="options of plans alone, for a bundle" if is_bundle else "--engine tensorrt beside it",
            fix="Leave it out",
        )
    if choices["engine"] is not None:
        _plan_options(choices).resolve()


_OF_CHECKPOINTS = ("quant", "min_recall", "k", "exporter", "sketch", "cluster", "dry_run")
_OF_PLANS = ("target", "precision", "library", "plan_k", "plan_batch")


def _given(names: tuple[str, ...]) -> list[str]:
    """Return which of some options stand on the command line, as they are typed."""
    context = click.get_current_context()
    typed = [name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    return ["--" + name.replace("_", "-") for name in typed]


def plans_text(plans: list[dict[str, Any]]) -> str:
    """Return the records as a table."""
    rows = [
        [plan["file"], plan["architecture"], f"{plan['library']} {plan['version']}", _remark(plan)] for plan in plans
    ]
    return columns(["plan", "GPU", "built by", "checked"], rows, left=4)


def _remark(plan: dict[str, Any]) -> str:
    if plan["model"].startswith("head/"):
        return "the log lists no layers" if plan["fused"] is None else "table read in 8 bits, uncopied"
    return "not compared" if plan["cosine"] is None else f"cosine with float32 at least {plan['cosine']:.5f}"
