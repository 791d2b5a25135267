"""The build: a checkpoint goes in, a bundle comes out; step by step, resumable, published by one rename."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Unpack

from fllm_export import arguments
from fllm_export.bundle.bundle import BUILD_REPORT, PARITY_REPORT, SIZE_REPORT, Bundle
from fllm_export.bundle.card import write_card
from fllm_export.bundle.choices import Dim, RoundingName
from fllm_export.bundle.chosen_table import chosen_table
from fllm_export.bundle.estimate import estimate
from fllm_export.bundle.job import Exporter, Job, Options
from fllm_export.bundle.ledger import FILES as LEDGER_FILES
from fllm_export.bundle.ledger import Ledger
from fllm_export.bundle.parity import Parity
from fllm_export.bundle.provenance import provenance
from fllm_export.bundle.publication import set_generation
from fllm_export.bundle.report import write_report
from fllm_export.bundle.steps import STEPS, Step
from fllm_export.bundle.wanted_size import BytesPerUser, WantedSize
from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.encoder_precisions import EncoderPrecision
from fllm_export.environment import thread_count
from fllm_export.errors import ParityError, UsageError
from fllm_export.files import exchange, publish_json, sync_directory
from fllm_export.manifest import FILE_NAME as MANIFEST
from fllm_export.manifest import describe_files
from fllm_export.operating_point import OperatingPoint
from fllm_export.progress import Progress, silent
from fllm_export.strict_json import read_object
from fllm_export.system_errors import check_place
from fllm_export.table.options import TableChoices


def build(
    checkpoint: Checkpoint | str | Path,
    output: str | Path,
    *,
    calibration: str | Path | Sequence[str],
    min_recall: float = 0.99,
    k: int = 100,
    dim: Dim | None = None,
    bytes_per_user: BytesPerUser | None = None,
    rounding: RoundingName = "auto",
    exporter: Exporter = "torch",
    encoder_precision: EncoderPrecision = "fp32",
    threads: int | None = None,
    operating_point: OperatingPoint | str | Path | None = None,
    progress: Progress = silent,
    **table: Unpack[TableChoices],
) -> Bundle:
    """Build a bundle, or return it when the same inputs have built it already.

    The work is done in ``OUTPUT.partial``, and an interrupted build continues from there. One rename moves the finished
    directory to ``output``. A bundle that it replaces is removed, and the new generation is one higher than the old.

    Args:
        checkpoint: a checkpoint, or its directory.
        output: the bundle's directory.
        calibration: real item texts: a file (see :meth:`ItemTexts.load`) or the texts themselves. Parity is measured
            on up to 256 of them, and the sketch is chosen by their item vectors.
        min_recall: minimum recall@k against the unmerged fp32 checkpoint.
        k: the k of that recall.
        dim: dimension that rows and item vectors are cut to, along the directions that matter most for the scores of
            the calibration texts. ``auto`` is the smallest whose rankings, before quantisation, lose at most half of
            what ``min_recall`` allows. Item vectors are measured on up to 16,384 texts beyond those of parity; at least
            as many as dimensions are needed.
        bytes_per_user: the most that the files of the user table may take per user, ids and biases counted. The codec,
            the dimension and the rounding with the highest recall@k within it are searched on up to 512 texts beyond
            those of parity. ``auto``: the smallest form that is sure to have ``min_recall``, by two standard errors.
            ``quant``, ``dim`` and ``rounding`` then restrict the search.
        encoder_precision: of the encoder on CPUs. ``int8`` and ``int4`` quantise its weights; recall is measured with
            them. Plans and GPUs use the float32 encoder, which the bundle keeps.
        rounding: ``nearest``; ``data``, which rounds rows so that the scores of the calibration texts change least; or
            ``auto``: ``data`` for int4, int4row, int2 and int1, and for every codec of integers with ``dim``, where
            there are at least as many texts beyond those of parity as dimensions.
        exporter: ``torch``, or ``optimum`` in an environment that has optimum-onnx.
        threads: threads for encoding and scanning; ``FLLM_NUM_THREADS`` or every CPU when not given.
        operating_point: what a sweep picked, or its file: it sets ``quant``, ``dim``, ``sketch`` and ``cluster``.
        progress: called with the progress of every stage.
        **table: ``quant``, ``shard_bytes``, ``sketch`` and ``cluster`` of the user table, as :class:`TableOptions`
            describes them.

    Raises:
        ParityError: recall is below ``min_recall``, ``auto`` finds no dimension or size, or export or merge changed the
            model; the report is in ``OUTPUT.partial/reports``.
        BundleError: the checkpoint or a text file is damaged.
        BudgetError: the disk space or the memory is not enough.
        HardwareError: the ``build`` extra is not installed.
        UsageError: an argument is invalid.
    """
    place = arguments.path(output, "output")
    check_output(place)
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint.load(arguments.path(checkpoint, "checkpoint"))
    choices, dim = chosen_table(operating_point, checkpoint.users.dim, dim, table)
    size = WantedSize.of(bytes_per_user, table.get("quant"), operating_point=operating_point is not None)
    options = Options(choices, min_recall, k, exporter, thread_count(threads), dim, encoder_precision, rounding, size)
    return run(Job.prepare(checkpoint, calibration, options, progress), place)


def run(job: Job, output: Path, steps: Sequence[Step] = STEPS) -> Bundle:
    """Run the steps of a job that are not done yet, and publish the bundle; errors as of :func:`build`."""
    check_output(output)
    finished = _finished(output, job.build_key)
    if finished is not None:
        _check_recall(finished, job.options)
        return finished
    replaced = (output / MANIFEST).is_file()
    generation = Bundle.load(output).table().layout.generation + 1 if replaced else 1
    forecast = estimate(job, output)
    forecast.check(output)
    staging = _staging(output)
    staging.mkdir(parents=True, exist_ok=True)
    with Ledger(staging) as ledger:
        for step in steps:
            _run_step(step, job, staging, ledger)
        staged = Bundle(staging, job.draft_manifest)
        origin = provenance(job, staged)
        write_report(staged, origin)
        _check_recall(staged, job.options)
        publish_json(staging / BUILD_REPORT, {"options": asdict(job.options), "forecast": forecast.to_dict()})
        set_generation(staging, generation)
        _describe(job, staged, origin)
        ledger.close()  # not before: hashing all files takes long, and a build interrupted there goes on from here
        _move_into_place(staging, output)
    return Bundle.load(output)


def searched_forms(output: Path) -> dict[str, Any] | None:
    """Return the report of the search for a size in a build that did not end, None where it measured no forms.

    Raises:
        BundleError: the report is damaged.
    """
    report = _staging(output) / SIZE_REPORT
    return read_object(report) if report.is_file() else None


def _staging(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


def _run_step(step: Step, job: Job, staging: Path, ledger: Ledger) -> None:
    key = step.key(job)
    if ledger.is_done(step.name, key):
        job.progress(f"{step.name} (done before)", 1, 1)
    else:
        ledger.record(step.name, key, step.work(job, staging))
    step.take_up(job, staging)


def check_output(output: Path) -> None:
    """Check that a bundle can be put at a path. A build may take hours, so this comes before anything is read.

    Raises:
        UsageError: it cannot be written to, or something else than a bundle is there.
    """
    check_place(output, "output")
    if (output / MANIFEST).is_file():
        return
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise UsageError(
            f"{output} exists and is not a bundle",
            expected="a new or empty path, or a bundle to replace",
            fix="Choose another output",
        )


def _finished(output: Path, build_key: str) -> Bundle | None:
    """Return the bundle at ``output`` if the same inputs made it."""
    if not (output / MANIFEST).is_file():
        return None
    bundle = Bundle.load(output)
    return bundle if bundle.manifest.provenance.get("build_key") == build_key else None


def _check_recall(bundle: Bundle, options: Options) -> None:
    parity: Parity = bundle.parity()
    recall = parity.recall[parity.k]
    if recall < options.min_recall:
        raise ParityError(
            f"recall@{parity.k} of the {options.table.quant} bundle against the fp32 checkpoint is {recall:.4f}",
            expected=f"at least {options.min_recall}",
            fix=f"Read {bundle.path / PARITY_REPORT}, then choose a finer codec (--quant) or encoder "
            "(--encoder-precision), or a lower --min-recall",
        )


def _describe(job: Job, staged: Bundle, origin: dict[str, Any]) -> None:
    """Write the model card and, last of all, the manifest."""
    write_card(staged, job.checkpoint.spec, origin)
    files, table = describe_files(staged.path, LEDGER_FILES), staged.table().layout.identity
    replace(job.draft_manifest, files=files, table=table, provenance=origin).save(staged.path)


def _move_into_place(staging: Path, output: Path) -> None:
    """Rename the staged directory, or let it change names with the bundle that it replaces, which is then removed."""
    if not output.is_symlink() and not (output / MANIFEST).is_file():
        staging.replace(output)  # to a new path, or an empty directory
        sync_directory(output.absolute().parent)
        return
    if not exchange(staging, output):
        raise UsageError(
            f"{output} and the complete new bundle {staging} cannot be exchanged in one step",
            expected="a file system that can exchange two directories",
            fix=f"Rename {staging} and publish it by a symbolic link",
        )
    if staging.is_symlink():
        staging.unlink()
    else:
        shutil.rmtree(staging)
