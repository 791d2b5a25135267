"""``fllm-export plan``: TensorRT plans for a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fllm_export.cli.options import DIRECTORY, threads_option
from fllm_export.cli.output import Output, columns, json_option, pass_output
from fllm_export.engines.tensorrt.library import LIBRARIES, LibraryName
from fllm_export.graphs.precision_names import PRECISIONS, Precision

if TYPE_CHECKING:
    from fllm_export.engines.tensorrt.plan import Plan


@click.command()
@click.argument("bundle", type=DIRECTORY)
@click.option("--target", multiple=True, help="GPU that the plans are for, for example sm89 (default: this GPU).")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp16",
    show_default=True,
    help="Precision of the encoder's matrix products.",
)
@click.option(
    "--library",
    type=click.Choice(LIBRARIES),
    help="Library that builds the plans (default: the first that is installed).",
)
@click.option("-k", "--k", type=int, default=256, show_default=True, help="Users that a head plan returns per tile.")
@click.option("--batch", type=int, default=32, show_default=True, help="Maximum number of items per call.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Real item texts, on which the encoder is compared with the float32 encoder. fp8 also computes its scales "
    "on them.",
)
@click.option(
    "--unchecked",
    is_flag=True,
    help="Accept plans that cannot be checked: an encoder that is not compared, or a head whose layers are not listed.",
)
@threads_option
@json_option
@pass_output
def plan(
    output: Output,
    bundle: Path,
    target: tuple[str, ...],
    precision: Precision,
    library: LibraryName | None,
    k: int,
    batch: int,
    calibration: Path | None,
    unchecked: bool,
    threads: int | None,
) -> None:
    """Build TensorRT plans for BUNDLE from its ONNX graphs: one for the encoder, one for the head.

    The plans are added to the bundle. They replace earlier plans for the same GPU, library and precision. Every plan
    is checked: the encoder is compared with the float32 encoder on item texts, and the head by the layers in the log
    of the builder.
    """
    from fllm_export.item_texts import ItemTexts
    from fllm_export.plans.build import add_plans
    from fllm_export.plans.options import PlanOptions

    options = PlanOptions(target, precision, library, k, batch, threads, unchecked)
    texts = [] if calibration is None else list(ItemTexts.load(calibration).texts)
    plans = add_plans(bundle, options, texts, output.progress)
    records = [plan.to_dict() for plan in plans]
    output.result({"bundle": str(bundle), "plans": records}, _text(plans))


def _text(plans: list[Plan]) -> str:
    """Return the records as a table."""
    rows: list[list[Any]] = [
        [plan.file, plan.architecture, f"{plan.library} {plan.version}", _remark(plan)] for plan in plans
    ]
    return columns(["plan", "GPU", "built by", "checked"], rows, left=4)


def _remark(plan: Plan) -> str:
    if plan.model.startswith("head/"):
        return "unchecked: the log lists no layers" if plan.fused is None else "table read in 8 bits, uncopied"
    return "unchecked: not compared" if plan.cosine is None else f"cosine with float32 at least {plan.cosine:.5f}"
