"""The steps of a build, in their order. Each writes its files below the staging directory and returns their paths."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fllm_export.bundle import calibration, form_search
from fllm_export.bundle.bundle import CPU_ENCODER_REPORT, ENCODER_REPORT, PARITY_REPORT
from fllm_export.bundle.job import Job
from fllm_export.bundle.learning import write_learner
from fllm_export.bundle.parity import ask, compare, true_top
from fllm_export.calibration.feedback import Feedback
from fllm_export.encoder_precisions import CPU_MODEL
from fllm_export.engines.names import EncoderName
from fllm_export.engines.registry import DEFAULT
from fllm_export.extras import require
from fllm_export.files import publish, publish_copy, publish_json
from fllm_export.prompt import PADDING_SIDES
from fllm_export.runtime.encoder import Encoder
from fllm_export.runtime.opened_bundle import BundleOptions, OpenedBundle
from fllm_export.runtime.runtime import Runtime
from fllm_export.runtime.user_table import UserTable
from fllm_export.table.rounding import nearest
from fllm_export.table.writer import TableWriter, write_table

ENCODER_TOLERANCE = 1e-3
"""Largest |onnx - torch| relative to the largest |torch| of an item vector."""


def encoder(job: Job, staging: Path) -> list[Path]:
    """Merge the adapter, export the encoder, and compare what ONNX Runtime computes with torch.

    Raises:
        ParityError: they differ by more than :data:`ENCODER_TOLERANCE`; the report is written first.
    """
    folder = staging / "encoder"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    checkpoint, merged = job.checkpoint, job.merged
    prompt = checkpoint.prompt()
    texts = prompt.tokenize(checkpoint.tokenizer(), job.probes)
    stage = f"export by {job.options.exporter}"
    job.progress(stage, 0, 1)
    model = folder / "model.onnx"
    if job.options.exporter == "torch":
        export = require("fllm_export.graphs.encoder").export_encoder
        export(merged.encoder, model, example=prompt.batch(texts))
    else:
        require("fllm_export.graphs.optimum").export_encoder_optimum(merged.encoder, model)
    checks = require("fllm_export.graphs.parity")
    # An encoder without position_ids is only compared as it will be served.
    sides = PADDING_SIDES if merged.encoder.positions.given else (prompt.padding_side,)
    parity = checks.compare_encoder(model, merged.encoder, checks.probe_batches(prompt, texts, sides))
    job.progress(stage, 1, 1)
    report = staging / ENCODER_REPORT
    publish_json(report, {"merge": asdict(merged.report), "onnx_against_torch": asdict(parity)})
    parity.require(ENCODER_TOLERANCE, job.probes)
    publish_copy(checkpoint.base / "tokenizer.json", staging / "tokenizer.json")
    return [*folder.iterdir(), report, staging / "tokenizer.json"]


def cpu_encoder(job: Job, staging: Path) -> list[Path]:
    """Write the exported encoder again, with integer weights, for CPUs; write nothing where they run it as it is.

    Raises:
        UsageError: the encoder has no weights that can be quantised.
    """
    model, report = staging / "encoder" / CPU_MODEL, staging / CPU_ENCODER_REPORT
    for path in (*model.parent.glob(f"{CPU_MODEL}*"), report):
        path.unlink(missing_ok=True)
    precision = job.options.encoder_precision
    if precision == "fp32":
        return []
    stage = f"encoder in {precision}"
    job.progress(stage, 0, 1)
    graphs = require("fllm_export.graphs.quantised_encoder")
    whole = require("onnx").load(staging / "encoder" / "model.onnx")
    changed, found = graphs.quantise_encoder(whole, precision, reduced_range=graphs.needs_reduced_range())
    require("fllm_export.graphs.model_files").publish_model(require("onnx_ir").from_proto(changed), model)
    publish_json(report, asdict(found))
    job.progress(stage, 1, 1)
    return [*model.parent.glob(f"{CPU_MODEL}*"), report]


def head(job: Job, staging: Path) -> list[Path]:
    """Write the head graph that the CPU engine runs, and those that TensorRT fuses."""
    folder = staging / "head"
    folder.mkdir(exist_ok=True)
    paths = []
    for name, model in require("fllm_export.graphs.heads").bundle_heads(**job.table_facts).items():
        path = folder / f"{name}.onnx"
        with publish(path) as file:
            file.write(model.SerializeToString())
        paths.append(path)
    return paths


def users(job: Job, staging: Path) -> list[Path]:
    """Stream the dense user rows into the table; shards that an interrupted build finished are kept."""
    folder = staging / "users"
    if (folder / "table.json").exists():  # of other inputs, or damaged since
        shutil.rmtree(folder)
    rows, options, transform = job.merged.users, job.options.table, job.transform
    items = None if options.sketch == "no" else job.item_vectors
    if items is not None and transform is not None:
        items = transform.item_vectors(items)
    writer = TableWriter(
        folder,
        options,
        dim=job.dim,
        scan_dim=job.row_dim,
        bias=rows.bias is not None,
        items=items,
        resume_key=job.users_key,
        rounding=nearest if job.metric is None else Feedback(job.metric[: job.row_dim, : job.row_dim]),
        link=job.checkpoint.spec.link,
    )
    chunks = (
        (part if transform is None else transform.rows(part), ids, bias) for ids, part, bias in rows.labelled_chunks()
    )
    layout = write_table(writer, chunks, rows.rows, job.progress)
    learner = write_learner(job, staging, layout)
    return [*learner, *(path for path in folder.iterdir() if path.is_file())]


def parity(job: Job, staging: Path) -> list[Path]:
    """Ask the staged bundle for real items and compare its rankings with the unmerged fp32 checkpoint's.

    The encoder is the one that CPUs run. If it is not in float32, the float32 one is asked too, which tells what it
    costs.
    """
    k, precision = job.options.k, job.options.encoder_precision
    reference, link = job.reference.users, job.checkpoint.spec.link
    truth = true_top(job.item_vectors, reference, k, job.progress, link=link)
    measured = compare(truth, ask(_staged(job, staging, "cpu"), job.sample, k, job.progress), job.sample, k)
    found: dict[str, Any] = {"parity": measured.to_dict(), "quant": job.options.table.quant}
    if precision != "fp32":
        plain = compare(truth, ask(_staged(job, staging, "cpu-fp32"), job.sample, k, job.progress), job.sample, k)
        found["encoder"] = {"precision": precision, "recall_of_fp32_encoder": plain.to_dict()["recall"]}
    texts = {"source": job.texts.source, "sha256": job.texts.sha256, "texts": len(job.texts.texts)}
    report = staging / PARITY_REPORT
    publish_json(report, {**found, "item_texts": texts})
    return [report]


def _staged(job: Job, staging: Path, where: EncoderName) -> Runtime:
    """Open the staged bundle with the encoder of that name."""
    draft, threads = job.draft_manifest, job.options.threads
    encoder = Encoder(staging, draft.prompt, draft.dim, threads, where)
    users = UserTable.open(staging / "users", engine=DEFAULT, threads=threads)
    return Runtime(OpenedBundle(staging, draft, encoder, users), BundleOptions(staging, DEFAULT, where, threads, {}))


@dataclass(frozen=True)
class Step:
    """A step of a build.

    Attributes:
        name: what progress and the ledger call it.
        key: a hash of everything that decides what it writes.
        work: writes files below the staging directory and returns their paths.
        take_up: reads what later steps need from those files, whether they were written now or before.
    """

    name: str
    key: Callable[[Job], str]
    work: Callable[[Job, Path], list[Path]]
    take_up: Callable[[Job, Path], None] = lambda job, staging: None


STEPS: tuple[Step, ...] = (
    Step("moments", calibration.moments_key, calibration.moments, calibration.forget_sums),
    Step("form of rows", form_search.key, form_search.search, form_search.take_up),
    Step("transform", calibration.transform_key, calibration.transform, calibration.take_up),
    Step("encoder", lambda job: job.key("encoder", job.options.exporter), encoder),
    Step(
        "cpu encoder", lambda job: job.key("cpu encoder", job.options.exporter, *job.cpu_encoder_choices), cpu_encoder
    ),
    Step("head", lambda job: job.key("head", job.table_facts), head),
    Step("users", lambda job: job.users_key, users),
    Step("parity", lambda job: job.key("parity", job.build_key), parity),
)
