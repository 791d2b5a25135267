"""TensorRT plans of a bundle: built from the ONNX graphs inside it, and put beside them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.bundle.bundle import Bundle
from fllm_export.bundle.order import require
from fllm_export.engines.tensorrt.builder import Built, build_plan
from fllm_export.engines.tensorrt.layers import table_is_fused
from fllm_export.engines.tensorrt.library import Library, LibraryName, open_library
from fllm_export.engines.tensorrt.plan import RECORDS, RECORDS_VERSION, Plan, plan_name, read_plans
from fllm_export.engines.tensorrt.profiles import encoder_profiles, head_profiles
from fllm_export.errors import ParityError, UsageError
from fllm_export.files import publish, publish_json
from fllm_export.graphs.precision_names import PRECISIONS, Precision
from fllm_export.manifest import describe_files
from fllm_export.onnx_session import cpu_session
from fllm_export.progress import Progress, silent
from fllm_export.prompt import load_tokenizer

LEAST_COSINE = {"fp16": 0.9999, "fp8": 0.95}
"""The least cosine of an item vector in that precision with the float32 one; bf16 cannot be run on a CPU."""

_PROBES = 32


@dataclass(frozen=True)
class PlanOptions:
    """What the caller may choose about plans.

    Attributes:
        targets: architectures such as ``sm89``; none means the GPU at hand.
        precision: of the encoder's products.
        library: ``tensorrt`` or ``tensorrt_rtx``; None takes the first that is installed.
        k: users that a tile returns.
        max_batch: items of one call at most.

    Raises:
        UsageError: a value is unfit.
    """

    targets: tuple[str, ...] = ()
    precision: Precision = "fp16"
    library: LibraryName | None = None
    k: int = 256
    max_batch: int = 32

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"the precision is {self.precision!r}", expected="one of " + ", ".join(PRECISIONS))
        for name, value in (("k", self.k), ("max_batch", self.max_batch)):
            if value < 1:
                raise UsageError(f"{name} is {value}", expected="at least 1")


def add_plans(
    bundle: Bundle, options: PlanOptions, texts: Sequence[str] = (), progress: Progress = silent
) -> list[Plan]:
    """Build TensorRT plans for a bundle's encoder and head, and write the manifest anew.

    The plans of these targets and this library are replaced, others stay. Nothing but the manifest and the records
    of the plans changes, and both by rename.

    Args:
        bundle: a finished bundle; its ONNX graphs are what the plans are built from.
        options: the caller's choices.
        texts: real item texts. The encoder in lower precision is compared with the float32 one on some of them; fp8
            also takes the scales of its activations from them, and needs them.
        progress: told of every stage.

    Returns:
        The records of the plans that were built, the encoder's first.

    Raises:
        HardwareError: TensorRT or the ``build`` extra is not installed, or a plan cannot be built.
        ParityError: lower precision changes the item vectors too much, or a head plan copies the table.
        UsageError: a target is unknown, or fp8 was asked for without texts.
    """
    library = open_library(options.library)
    targets = library.targets(options.targets)
    workshop = _Workshop(bundle, library, options, progress)
    encoder = workshop.encoder(targets, list(texts)[:_PROBES])
    heads = workshop.heads(targets)
    replace(bundle.manifest, files=describe_files(bundle.path)).save(bundle.path)
    return [*encoder, *heads]


class _Workshop:
    """What the builds of one call share."""

    def __init__(self, bundle: Bundle, library: Library, options: PlanOptions, progress: Progress) -> None:
        self._bundle, self._library, self._options, self._progress = bundle, library, options, progress

    def encoder(self, targets: tuple[str, ...], texts: list[str]) -> list[Plan]:
        """Lower the precision in a file that stands beside the plans for a moment, check it, and build from it."""
        model, precision = self._bundle.path / "encoder" / "model.onnx", self._options.precision
        folder = model.parent / "plans"
        folder.mkdir(exist_ok=True)
        profiles = encoder_profiles(self._bundle.manifest.prompt.max_length, self._options.max_batch)
        with tempfile.TemporaryDirectory(dir=self._bundle.path.parent, prefix=".plans.") as aside:
            lowered = Path(aside) / "model.onnx"
            self._lower(model, lowered, texts)
            plans = []
            for target in targets:
                built = self._build(lowered, profiles, target)
                plans.append(self._publish(folder, built, "encoder/model.onnx", precision, target, None))
        self._record(folder, plans)
        return plans

    def heads(self, targets: tuple[str, ...]) -> list[Plan]:
        """Build the head of free tile size; a codec that TensorRT does not multiply has none."""
        layout = self._bundle.table().layout
        heads = require("fllm_export.graphs.heads")
        if layout.codec not in heads.TENSORRT_CODECS:
            return []
        form = heads.plan_form(layout.codec)
        stem = form if self._options.k == heads.TENSORRT_K else f"{form}-k{self._options.k}"
        model = self._bundle.path / "head" / f"{stem}.onnx"
        if not model.is_file():
            made = heads.tensorrt_heads(layout.codec, layout.dim, bias=layout.bias, k=self._options.k)[form]
            with publish(model) as file:
                file.write(made.SerializeToString())
        folder = model.parent / "plans"
        folder.mkdir(exist_ok=True)
        digits = heads.plan_digits(layout.codec)
        profiles = head_profiles(layout.dim, self._options.max_batch, heads.CHUNK_ROWS, self._options.k, digits)
        plans = []
        for target in targets:
            built = self._build(model, profiles, target)
            fused = table_is_fused(built.layers, form)
            plan = self._publish(folder, built, f"head/{stem}.onnx", form, target, fused)
            plans.append(replace(plan, k=self._options.k, chunk_rows=heads.CHUNK_ROWS))
        self._record(folder, plans)
        return plans

    def _lower(self, model: Path, lowered: Path, texts: list[str]) -> None:
        onnx, ir = require("onnx"), require("onnx_ir")
        precision = require("fllm_export.graphs.precision")
        batches = self._batches(texts)
        whole = onnx.load(model)
        peaks = {}
        if self._options.precision == "fp8":
            if not batches:
                raise UsageError(
                    "an fp8 encoder was asked for without item texts",
                    expected="texts to take the activations' scales from",
                    fix="Give --calibration, or choose --precision fp16",
                )
            measure: Callable[..., dict[str, float]] = require("fllm_export.calibration.activations").activation_peaks
            peaks = measure(model, precision.quantised_inputs(whole), batches, os.cpu_count() or 1)
        changed = precision.lower_precision(whole, self._options.precision, peaks)
        require("fllm_export.graphs.model_files").publish_model(ir.from_proto(changed), lowered)
        if batches and self._options.precision in LEAST_COSINE:
            self._compare(model, lowered, batches)

    def _batches(self, texts: list[str]) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        if not texts:
            return []
        prompt = self._bundle.manifest.prompt
        ids = prompt.tokenize(load_tokenizer(self._bundle.path / "tokenizer.json"), texts)
        return [prompt.batch([one]) for one in ids]

    def _compare(self, model: Path, lowered: Path, batches: Sequence[tuple[Any, Any]]) -> None:
        """Run both on the CPU.

        Raises:
            ParityError: an item vector turns too far.
        """
        least, precision = 1.0, self._options.precision
        sessions = [cpu_session(path, os.cpu_count() or 1) for path in (model, lowered)]
        for number, (ids, mask) in enumerate(batches):
            self._progress(f"encoder in {precision}", number, len(batches))
            feed = {"input_ids": ids, "attention_mask": mask}
            z, changed = (session.run(["item_vector"], feed)[0][0].astype(np.float64) for session in sessions)
            norms = float(np.linalg.norm(z) * np.linalg.norm(changed))
            least = min(least, float(z @ changed) / norms if norms else float(not (z - changed).any()))
        self._progress(f"encoder in {precision}", len(batches), len(batches))
        if not least >= LEAST_COSINE[precision]:
            raise ParityError(
                f"an item vector of the encoder in {precision} has cosine {least:.5f} with the float32 one",
                expected=f"at least {LEAST_COSINE[precision]}",
                fix="Choose another --precision",
            )

    def _build(self, model: Path, profiles: Sequence[Any], target: str) -> Built:
        """Build with the timing cache that earlier builds on this GPU left, where the library has one."""
        name = f"timing-{self._library.name}-{self._library.version}-{target}.cache"
        cache = self._bundle.path / "head" / "plans" / name
        known = cache.read_bytes() if cache.is_file() else b""
        built = build_plan(self._library, model, profiles, target, timing_cache=known, progress=self._progress)
        if built.timing_cache:
            with publish(cache) as file:
                file.write(built.timing_cache)
        return built

    def _publish(self, folder: Path, built: Built, model: str, precision: str, target: str, fused: bool | None) -> Plan:
        stem = Path(model).stem if model.startswith("head/") else precision
        name = plan_name(stem, self._library.name, self._library.version, target)
        with publish(folder / name) as file:
            file.write(built.plan)
        return Plan(name, model, self._library.name, self._library.version, target, precision, fused)

    def _record(self, folder: Path, plans: list[Plan]) -> None:
        """Write the records of a folder; those of plans with other names are kept."""
        names = {plan.file for plan in plans}
        kept = [plan for plan in read_plans(folder) if plan.file not in names]
        records = sorted([*kept, *plans], key=lambda plan: plan.file)
        publish_json(
            folder / RECORDS, {"format_version": RECORDS_VERSION, "plans": [plan.to_dict() for plan in records]}
        )
