"""TensorRT plans of a bundle: built from the ONNX graphs inside it, and put beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fllm_export import arguments
from fllm_export.engines.tensorrt.library import Library
from fllm_export.engines.tensorrt.plan import Plan, plan_name, read_plans
from fllm_export.environment import thread_count
from fllm_export.errors import ParityError, UsageError
from fllm_export.extras import require
from fllm_export.link import EXPONENTIAL
from fllm_export.manifest import TABLE_FOLDER, Manifest
from fllm_export.plan_forms import PLAN_FORMS
from fllm_export.plans.draft import Draft
from fllm_export.plans.layers import table_is_fused
from fllm_export.plans.lowered_encoder import lower_encoder, token_batches, why_not_compared
from fllm_export.plans.options import PlanOptions, check_precision
from fllm_export.plans.profiles import encoder_profiles, head_profiles
from fllm_export.progress import Progress, silent
from fllm_export.table.layout import TableLayout

_ENCODER = "encoder/model.onnx"
_PROBES = 32


def add_plans(
    bundle: str | Path, options: PlanOptions, texts: Sequence[str] = (), progress: Progress = silent
) -> list[Plan]:
    """Build TensorRT plans for a bundle's encoder and head, and rewrite the manifest.

    The plans of these targets and this library are replaced, others stay. All are built aside, and nothing in the
    bundle changes before the last of them is there. The manifest vouches for what was written and for nothing else.

    Args:
        bundle: directory of a finished bundle; its ONNX graphs are what the plans are built from.
        options: the caller's choices.
        texts: real item texts. The encoder in lower precision is compared with the float32 one on some of them; fp8
            also takes the scales of its activations from them, and needs them.
        progress: told of every stage.

    Returns:
        The records of the plans that were built, the encoder's first.

    Raises:
        BundleError: a graph or a record of plans is damaged.
        HardwareError: TensorRT or the ``build`` extra is not installed, or a plan cannot be built.
        ParityError: lower precision changes the item vectors too much, a head plan copies the table, or, unless the
            options accept it, one of the two could not be checked.
        UsageError: a target is unknown, or fp8 was requested without texts.
    """
    directory = arguments.path(bundle, "bundle")
    manifest, layout = Manifest.load(directory), TableLayout.load(directory / TABLE_FOLDER)
    if layout.refinement is not None:
        raise UsageError(
            f"the user table of {directory} has refinement rows, which the engine `tensorrt` does not read",
            expected="a bundle that was built without --refine",
            fix="Build one without it, or search with the engine `native`",
        )
    library, targets = options.resolve()
    if layout.codec == "fp8":
        check_precision(targets, "fp8", "a head of fp8 rows", "Build an int8 bundle for older GPUs")
    probes = list(texts)[:_PROBES]
    _check_texts(options, probes)
    graphs = [name for name in manifest.files if name.startswith(("encoder/", "head/")) and "/plans/" not in name]
    manifest.verify(directory, [*graphs, _ENCODER])
    records = {part: read_plans(directory / part / "plans") for part in ("encoder", "head")}
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".plans.") as aside:
        draft = Draft(directory, Path(aside) / "new", library, progress)
        lowered = Path(aside) / "encoder.onnx"
        batches = token_batches(directory, manifest.prompt, probes)
        threads = thread_count(options.threads)
        made = lower_encoder(directory / _ENCODER, lowered, options.precision, batches, threads, progress)
        encoder = [
            replace(plan, cosine=made.cosine)
            for plan in _encoder_plans(draft, lowered, targets, options, manifest.prompt.max_length, tf32=made.tf32)
        ]
        heads = _head_plans(draft, manifest, layout, targets, options)
        for part, plans in (("encoder", encoder), ("head", heads)):
            if plans:
                draft.record(part, records[part], plans)
        written = draft.publish()
    replace(manifest, files={**manifest.files, **written}).save(directory)
    return [*encoder, *heads]


def _check_texts(options: PlanOptions, texts: Sequence[str]) -> None:
    if options.precision == "fp8" and not texts:
        raise UsageError(
            "an fp8 encoder was requested without item texts",
            expected="texts to take the activations' scales from",
            fix="Give --calibration, or choose --precision fp16",
        )
    why = why_not_compared(options.precision, texts)
    if why is not None and not options.unchecked:
        raise ParityError(
            f"the encoder in {options.precision} cannot be compared with the float32 one: {why}",
            expected="a comparison on item texts",
            fix="Give --calibration with --precision fp16 or fp8, or accept the plan with --unchecked",
        )


def _encoder_plans(
    draft: Draft, lowered: Path, targets: tuple[str, ...], options: PlanOptions, max_length: int, *, tf32: bool
) -> list[Plan]:
    profiles, library = encoder_profiles(max_length, options.max_batch), draft.library
    plans = []
    for target in targets:
        built = draft.build(lowered, profiles, target, tf32=tf32)
        name = plan_name(options.precision, library.name, library.version, target)
        draft.write(f"encoder/plans/{name}", built.plan)
        plans.append(_record(name, _ENCODER, library, target, options.precision, options.max_batch))
    return plans


def _head_plans(
    draft: Draft, manifest: Manifest, layout: TableLayout, targets: tuple[str, ...], options: PlanOptions
) -> list[Plan]:
    """Build the head of free tile size; a codec that TensorRT does not multiply has none, and neither has a power."""
    heads, library = require("fllm_export.graphs.heads"), draft.library
    form, k = PLAN_FORMS.get(layout.codec), options.k
    if form is None or layout.link != EXPONENTIAL:
        return []
    graph = f"head/{form.name}.onnx" if k == heads.TENSORRT_K else f"head/{form.name}-k{k}.onnx"
    model = draft.bundle / graph
    if graph not in manifest.files:
        model = draft.path(graph)
        draft.write(graph, heads.tensorrt_head(form, layout.dim, bias=layout.bias, k=k).SerializeToString())
    profiles = head_profiles(layout.dim, options.max_batch, heads.CHUNK_ROWS, k, form.digits)
    plans = []
    for target in targets:
        built = draft.build(model, profiles, target)
        name = plan_name(model.stem, library.name, library.version, target)
        draft.write(f"head/plans/{name}", built.plan)
        fused = table_is_fused(built.layers, form.name)
        if fused is None and not options.unchecked:
            raise ParityError(
                f"the log of {library.name} {library.version} lists no layers of the head {form.name} for {target}",
                expected="layers that show the user table in one 8-bit product",
                fix="Accept it with --unchecked, or report the TensorRT version",
            )
        plan = _record(name, graph, library, target, form.name, options.max_batch)
        plans.append(replace(plan, fused=fused, k=k, chunk_rows=heads.CHUNK_ROWS))
    return plans


def _record(name: str, model: str, library: Library, target: str, precision: str, max_batch: int) -> Plan:
    return Plan(name, model, library.name, library.version, target, precision, None, max_batch=max_batch)
