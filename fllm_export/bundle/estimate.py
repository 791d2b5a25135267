"""What a build will take, before it begins: files, bytes, memory and time, with the arithmetic shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fllm_export.bundle.job import Job
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
_PARITY_TEXTS_PER_S = 60.0
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
    parity_texts = len(job.sample)
    return Quantity(
        table.value + export_s + parity_texts / _PARITY_TEXTS_PER_S,
        "seconds",
        f"{table.value:.1f} s table ({footprint.rows:,} rows at the rate measured now) + {export_s:.0f} s export "
        f"+ {parity_texts} parity texts / {_PARITY_TEXTS_PER_S:.0f} per s",
    )
