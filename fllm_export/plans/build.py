"""TensorRT plans of a bundle: built from the ONNX graphs inside it, and put beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.engines.tensorrt.library import Library, LibraryName, open_library
from fllm_export.engines.tensorrt.plan import RECORDS, RECORDS_VERSION, Plan, plan_name, read_plans
from fllm_export.environment import thread_count
from fllm_export.errors import BundleError, ParityError, UsageError
from fllm_export.extras import require
from fllm_export.files import publish, publish_json, sync_directory
from fllm_export.graphs.precision_names import PRECISIONS, Precision
from fllm_export.manifest import TABLE_FOLDER, FileEntry, Manifest, describe_files
from fllm_export.onnx_session import cpu_session
from fllm_export.plans.builder import Built, build_plan
from fllm_export.plans.layers import table_is_fused
from fllm_export.plans.profiles import encoder_profiles, head_profiles
from fllm_export.progress import Progress, silent
from fllm_export.prompt import load_tokenizer
from fllm_export.table.layout import TableLayout

LEAST_COSINE = {"fp16": 0.9999, "fp8": 0.95}
"""The least cosine of an item vector in that precision with the float32 one; bf16 cannot be run on a CPU."""

_PROBES = 32


MOST_K = 1 << 16
"""Users that a head plan returns of a tile at most."""

_OLDEST = {"fp16": 80, "bf16": 80, "fp8": 89}
"""The oldest GPU that multiplies in a precision, as the number in its name."""


@dataclass(frozen=True)
class PlanOptions:
    """What the caller may choose about plans.

    Attributes:
        targets: architectures such as ``sm89``; none means the GPU at hand.
        precision: of the encoder's products.
        library: ``tensorrt`` or ``tensorrt_rtx``; None takes the first that is installed.
        k: users that a tile returns.
        max_batch: items of one call at most.
        threads: of the comparison on the CPU; None is every CPU.

    Raises:
        UsageError: a value is unfit.
    """

    targets: tuple[str, ...] = ()
    precision: Precision = "fp16"
    library: LibraryName | None = None
    k: int = 256
    max_batch: int = 32
    threads: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.targets, str):
            raise UsageError(f"the targets are {self.targets!r}", expected="a tuple of names")
        if self.precision not in PRECISIONS:
            raise UsageError(f"the precision is {self.precision!r}", expected="one of " + ", ".join(PRECISIONS))
        if not 1 <= self.k <= MOST_K:
            raise UsageError(f"k of the head plan is {self.k}", expected=f"from 1 to {MOST_K}")
        if self.max_batch < 1:
            raise UsageError(f"max_batch is {self.max_batch}", expected="at least 1")

    def resolve(self) -> tuple[Library, tuple[str, ...]]:
        """Return the library that builds and the GPUs it builds for, each once.

        Raises:
            HardwareError: the library is not installed, or the GPU at hand was meant and there is none.
            UsageError: a target is unknown, or does not multiply in the precision.
        """
        library = open_library(self.library)
        targets = tuple(dict.fromkeys(library.targets(self.targets)))
        _check_precision(targets, self.precision, f"an encoder in {self.precision}", "Choose another --precision")
        return library, targets


def _check_precision(targets: tuple[str, ...], precision: str, what: str, fix: str) -> None:
    oldest = _OLDEST[precision]
    for target in targets:
        if int(target.removeprefix("sm")) < oldest:
            raise UsageError(f"{what} was asked for on {target}", expected=f"sm{oldest} or later", fix=fix)


def add_plans(
    bundle: str | Path, options: PlanOptions, texts: Sequence[str] = (), progress: Progress = silent
) -> list[Plan]:
    """Build TensorRT plans for a bundle's encoder and head, and write the manifest anew.

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
        ParityError: lower precision changes the item vectors too much, or a head plan copies the table.
        UsageError: a target is unknown, or fp8 was asked for without texts.
    """
    directory = arguments.path(bundle, "bundle")
    manifest, layout = Manifest.load(directory), TableLayout.load(directory / TABLE_FOLDER)
    library, targets = options.resolve()
    if layout.codec == "fp8":
        _check_precision(targets, "fp8", "a head of fp8 rows", "Build an int8 bundle for older GPUs")
    graphs = [name for name in manifest.files if name.startswith(("encoder/", "head/")) and "/plans/" not in name]
    manifest.verify(directory, [*graphs, "encoder/model.onnx"])
    records = {part: read_plans(directory / part / "plans") for part in ("encoder", "head")}
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".plans.") as aside:
        workshop = _Workshop(directory, manifest, library, options, Path(aside), progress)
        encoder = workshop.encoder(targets, list(texts)[:_PROBES])
        heads = workshop.heads(targets, layout)
        for part, plans in (("encoder", encoder), ("head", heads)):
            if plans:
                workshop.record(part, records[part], plans)
        written = workshop.publish()
    replace(manifest, files={**manifest.files, **written}).save(directory)
    return [*encoder, *heads]


class _Workshop:
    """What the builds of one call share. Files are written into ``aside``, under the names that they get in the end."""

    def __init__(
        self,
        bundle: Path,
        manifest: Manifest,
        library: Library,
        options: PlanOptions,
        aside: Path,
        progress: Progress,
    ) -> None:
        self._bundle, self._manifest, self._library, self._options = bundle, manifest, library, options
        self._aside, self._new, self._progress = aside, aside / "new", progress
        self._threads = thread_count(options.threads)
        self._cosine: float | None = None

    def encoder(self, targets: tuple[str, ...], texts: list[str]) -> list[Plan]:
        """Lower the precision, check it, and build from that."""
        model, lowered = self._bundle / "encoder" / "model.onnx", self._aside / "encoder.onnx"
        profiles = encoder_profiles(self._manifest.prompt.max_length, self._options.max_batch)
        self._lower(model, lowered, texts)
        return [
            self._keep(self._build(lowered, profiles, target), "encoder/model.onnx", self._options.precision, target)
            for target in targets
        ]

    def heads(self, targets: tuple[str, ...], layout: TableLayout) -> list[Plan]:
        """Build the head of free tile size; a codec that TensorRT does not multiply has none."""
        heads = require("fllm_export.graphs.heads")
        if layout.codec not in heads.TENSORRT_CODECS:
            return []
        form, k = heads.plan_form(layout.codec), self._options.k
        name = f"head/{form}.onnx" if k == heads.TENSORRT_K else f"head/{form}-k{k}.onnx"
        model = self._bundle / name
        if name not in self._manifest.files:
            model = self._new / name
            made = heads.tensorrt_head(form, layout.dim, bias=layout.bias, k=k)
            with publish(model) as file:
                file.write(made.SerializeToString())
        digits = heads.plan_digits(layout.codec)
        profiles = head_profiles(layout.dim, self._options.max_batch, heads.CHUNK_ROWS, k, digits)
        plans = []
        for target in targets:
            built = self._build(model, profiles, target)
            plan = self._keep(built, name, form, target)
            fused = table_is_fused(built.layers, form)
            plans.append(replace(plan, fused=fused, k=k, chunk_rows=heads.CHUNK_ROWS))
        return plans

    def record(self, part: str, known: list[Plan], plans: list[Plan]) -> None:
        """Write the records of a folder; those of plans with other names are kept."""
        names = {plan.file for plan in plans}
        records = sorted([*(plan for plan in known if plan.file not in names), *plans], key=lambda plan: plan.file)
        document = {"format_version": RECORDS_VERSION, "plans": [plan.to_dict() for plan in records]}
        publish_json(self._new / part / "plans" / RECORDS, document)

    def publish(self) -> dict[str, FileEntry]:
        """Move everything into the bundle, the records of plans last, and return what the manifest shall say of it."""
        written = describe_files(self._new)
        for name in sorted(written, key=lambda name: name.endswith(RECORDS)):
            target = self._bundle / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                raise BundleError(f"{target.parent} is a file", expected="a folder", fix="Remove it") from None
            (self._new / name).replace(target)
            sync_directory(target.parent)
        return written

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
            peaks = measure(model, precision.quantised_inputs(whole), batches, self._threads)
        changed = precision.lower_precision(whole, self._options.precision, peaks)
        require("fllm_export.graphs.model_files").publish_model(ir.from_proto(changed), lowered)
        if batches and self._options.precision in LEAST_COSINE:
            self._compare(model, lowered, batches)

    def _batches(self, texts: list[str]) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        if not texts:
            return []
        prompt = self._manifest.prompt
        ids = prompt.tokenize(load_tokenizer(self._bundle / "tokenizer.json"), texts)
        return [prompt.batch([one]) for one in ids]

    def _compare(self, model: Path, lowered: Path, batches: Sequence[tuple[Any, Any]]) -> None:
        """Run both on the CPU.

        Raises:
            ParityError: an item vector turns too far.
        """
        least, precision = 1.0, self._options.precision
        sessions = [cpu_session(path, self._threads) for path in (model, lowered)]
        for number, (ids, mask) in enumerate(batches):
            self._progress(f"encoder in {precision}", number, len(batches))
            feed = {"input_ids": ids, "attention_mask": mask}
            z, changed = (session.run(["item_vector"], feed)[0][0].astype(np.float64) for session in sessions)
            norms = float(np.linalg.norm(z) * np.linalg.norm(changed))
            least = min(least, float(z @ changed) / norms if norms else float(not (z - changed).any()))
        self._progress(f"encoder in {precision}", len(batches), len(batches))
        self._cosine = least
        if not least >= LEAST_COSINE[precision]:
            raise ParityError(
                f"an item vector of the encoder in {precision} has cosine {least:.5f} with the float32 one",
                expected=f"at least {LEAST_COSINE[precision]}",
                fix="Choose another --precision",
            )

    def _build(self, model: Path, profiles: Sequence[Any], target: str) -> Built:
        """Build with the timing cache that earlier builds on this GPU left, where the library has one."""
        name = f"head/plans/timing-{self._library.name}-{self._library.version}-{target}.cache"
        caches = [folder / name for folder in (self._new, self._bundle)]
        known = next((cache.read_bytes() for cache in caches if cache.is_file()), b"")
        built = build_plan(self._library, model, profiles, target, timing_cache=known, progress=self._progress)
        if built.timing_cache:
            with publish(self._new / name) as file:
                file.write(built.timing_cache)
        return built

    def _keep(self, built: Built, model: str, precision: str, target: str) -> Plan:
        is_head = model.startswith("head/")
        stem = Path(model).stem if is_head else precision
        name = plan_name(stem, self._library.name, self._library.version, target)
        with publish(self._new / Path(model).parent / "plans" / name) as file:
            file.write(built.plan)
        version, batch = self._library.version, self._options.max_batch
        cosine = None if is_head else self._cosine
        return Plan(name, model, self._library.name, version, target, precision, None, None, None, batch, cosine)
