"""What a build will take, before it begins: files, bytes, memory and time, with the arithmetic shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fllm_export.bundle.calibration import ROWS_MEASURED
from fllm_export.bundle.job import Job
from fllm_export.calibration.ranks import offered_dims
from fllm_export.calibration.user_sample import NUMBERS_MOST
from fllm_export.encoder_precisions import CPU_MODEL
from fllm_export.errors import BudgetError
from fllm_export.planning import sizes, times
from fllm_export.planning.machine import available_memory, existing, free_disk
from fllm_export.planning.quantity import Quantity
from fllm_export.planning.source import FLOAT_BYTES, parameters
from fllm_export.planning.table_probe import measure_writing
from fllm_export.table.footprint import Footprint

_EXPORT_S_PER_GB = 25.0
_EXPORT_S = 6.0
# Texts that an encoder of so many parameters, or of fewer, encodes for a build; of more, time grows with them.
_TEXTS_PER_S = 60.0
_TEXTS_PARAMETERS = 23_000_000
# A user's score for a text, and its place in the ranking.
_SCORE_S = 35e-9
# A number of a row that the search encodes in a form and decodes again, rounded in either way.
_STORED_S = 0.2e-6
_FORMS_PER_LINE = 2
# Weights while exporting: the merged model, its copy for the unmerged reference, and the serialised graph.
_MODEL_COPIES = 3
_LIBRARIES_BYTES = 700 << 20


@dataclass(frozen=True)
class Estimate:
    """A forecast of a build.

    Attributes:
        files: path in the bundle -> bytes.
        disk: bytes of all files.
        memory: peak bytes of the process.
        time: seconds on this machine.
    """

    files: dict[str, Quantity]
    disk: Quantity
    memory: Quantity
    time: Quantity

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)

    def check(self, output: Path) -> None:
        """Refuse a build that cannot end well here.

        Raises:
            BudgetError: the disk or the memory is too small.
        """
        free = free_disk(output)
        if self.disk.value > free:
            raise BudgetError(
                f"the bundle takes {self.disk.value:,.0f} bytes and {existing(output)} has {free:,} free",
                expected="enough free disk space for the bundle",
                fix="Free some space or choose a smaller codec (--quant)",
            )
        available = available_memory()
        if self.memory.value > available:
            raise BudgetError(
                f"the build takes about {self.memory.value:,.0f} bytes of memory and {available:,} are available",
                expected="enough memory for the build",
                fix="Build on a machine with more memory",
            )


def estimate(job: Job, output: Path) -> Estimate:
    """Forecast a build of the bundle ``output``. A probe beside it, as small as the table allows, measures the time."""
    checkpoint, users = job.checkpoint, job.checkpoint.users
    footprint = Footprint.of(job.options.table, users.rows, job.dim, scan_dim=job.row_dim, bias=users.bias is not None)
    most = "" if job.requested.size is None else f"at most, as {job.options.table.quant} x {job.dim}: "
    table = sizes.disk(footprint)["disk"]
    count = parameters(checkpoint)
    encoder_bytes = count * FLOAT_BYTES
    files = {
        "encoder/model.onnx": Quantity(encoder_bytes, "bytes", f"{count:,} parameters x {FLOAT_BYTES} bytes (fp32)"),
        **_for_cpus(job, encoder_bytes),
        "users/": Quantity(table.value, "bytes", most + _table_words(footprint)),
        "tokenizer.json": Quantity((checkpoint.base / "tokenizer.json").stat().st_size, "bytes", "copied"),
    }
    writing = sizes.writing_memory(footprint)
    return Estimate(
        files=files,
        disk=Quantity(sum(file.value for file in files.values()), "bytes", "sum of the files"),
        memory=Quantity(
            writing.value - sizes.WRITER_BYTES + _LIBRARIES_BYTES + _MODEL_COPIES * encoder_bytes,
            "bytes",
            f"{_LIBRARIES_BYTES:,} libraries + {_MODEL_COPIES} x {encoder_bytes:,} encoder "
            f"+ {writing.value - sizes.WRITER_BYTES:,} shard and copies",
        ),
        time=_time(job, footprint, encoder_bytes, existing(output)),
    )


def _for_cpus(job: Job, encoder_bytes: int) -> dict[str, Quantity]:
    """Return the encoder with integer weights, if the bundle gets one; lookup tables stay in fp32."""
    precision = job.options.encoder_precision
    if precision == "fp32":
        return {}
    words = f"at most {encoder_bytes:,} of encoder/model.onnx; products in {precision} take less"
    return {f"encoder/{CPU_MODEL}": Quantity(encoder_bytes, "bytes", words)}


def _table_words(footprint: Footprint) -> str:
    parts = [f"{quantity.value:,} {name}" for name, quantity in sizes.disk(footprint).items() if name != "disk"]
    most = " (sketch: at most; the rows decide its dimensions)" if footprint.sketch_dims else ""
    return " + ".join(parts) + most


def _time(job: Job, footprint: Footprint, encoder_bytes: int, folder: Path) -> Quantity:
    table = times.writing(footprint, measure_writing(footprint, folder))["build"]
    export_s = _EXPORT_S + _EXPORT_S_PER_GB * encoder_bytes / 1e9
    parts = [
        (table.value, f"{table.value:.1f} s table ({footprint.rows:,} rows at the rate measured now)"),
        (export_s, f"{export_s:.0f} s export"),
        _encoding(job),
        _ranking(job),
        *_search(job),
    ]
    return Quantity(sum(value for value, _ in parts), "seconds", " + ".join(words for _, words in parts))


def _encoding(job: Job) -> tuple[float, str]:
    """Return the seconds in which texts become item vectors, and the arithmetic."""
    texts = {"parity": len(job.sample), "choosing": len(job.choice_texts)}
    texts["calibration"] = len(job.moment_texts) if job.measured_by else 0
    rate = _TEXTS_PER_S * min(1.0, _TEXTS_PARAMETERS / parameters(job.checkpoint))
    words = " and ".join(f"{count:,} {name}" for name, count in texts.items() if count)
    return sum(texts.values()) / rate, f"{words} texts / {rate:.3g} per s"


def _ranking(job: Job) -> tuple[float, str]:
    """Return the seconds in which users are ranked in fp32 for texts, over all users or those of a sample."""
    users, texts = job.checkpoint.users, len(job.sample)
    pairs = users.rows * texts
    if job.requested.size is not None:
        pairs += users.rows * (texts + len(job.choice_texts))
    if job.options.dim == "auto":
        pairs += min(users.rows, ROWS_MEASURED) * texts * (1 + len(offered_dims(users.dim)))
    return pairs * _SCORE_S, f"{pairs:,} fp32 scores x {_SCORE_S * 1e9:.0f} ns"


def _search(job: Job) -> Iterator[tuple[float, str]]:
    """Yield the seconds of the search for the form of rows, where a size is wanted."""
    if job.requested.size is None:
        return
    users, texts = job.checkpoint.users, len(job.choice_texts)
    rows = min(users.rows, NUMBERS_MOST // users.dim)
    forms = _FORMS_PER_LINE * len(job.forms().lines())
    each = texts * _SCORE_S + users.dim * _STORED_S
    words = f"{forms} forms of rows x {rows:,} users x {each * 1e6:.0f} us (as many as are usual)"
    yield forms * rows * each, words
