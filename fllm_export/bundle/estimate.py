"""What a build will take, before it begins: files, bytes, memory and time, with the arithmetic shown."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fllm_export.bundle.job import Job
from fllm_export.errors import BudgetError
from fllm_export.table import sketch
from fllm_export.table.bit_planes import whole_groups
from fllm_export.table.codecs import codec
from fllm_export.table.layout import tile_rows
from fllm_export.table.shard import PAGE_BYTES
from fllm_export.table.shard_rows import ShardRows
from fllm_export.table.sketch_maker import SketchMaker
from fllm_export.table.tile_maker import TileMaker

_PROBE_ROWS = 4096
_EXPORT_S_PER_GB = 25.0
_EXPORT_S = 6.0
_PARITY_TEXTS_PER_S = 60.0
_FP32_BYTES = 4
# Weights while exporting: the merged model, its copy for the unmerged reference, and the serialised graph.
_MODEL_COPIES = 3
# A shard while it is written: its parts, their concatenation, and the reordered copy when ids do not ascend.
_SHARD_COPIES = 3
# Header, codes with scales or groups, ids; a sketch's codes, factors and basis; directions and extents.
_PLAIN_TENSORS, _SKETCH_TENSORS, _BOUNDS_TENSORS = 4, 5, 2
_INTERPRETER_BYTES = 700 << 20


@dataclass(frozen=True)
class Quantity:
    """A number and how it came about."""

    value: float
    unit: str
    arithmetic: str


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
        place = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
        free = shutil.disk_usage(place).free
        if self.disk.value > free:
            raise BudgetError(
                f"the bundle takes {self.disk.value:,.0f} bytes and {place} has {free:,} free",
                expected="enough free disk space for the bundle",
                fix="Free some space or choose a smaller codec (--quant)",
            )
        available = _available_memory()
        if self.memory.value > available:
            raise BudgetError(
                f"the build takes about {self.memory.value:,.0f} bytes of memory and {available:,} are available",
                expected="enough memory for the build",
                fix="Build on a machine with more memory",
            )


def estimate(job: Job) -> Estimate:
    """Forecast a build."""
    checkpoint, quant, shard_bytes = job.checkpoint, job.options.table.quant, job.options.table.shard_bytes
    users = checkpoint.users
    row_bytes = codec(quant).row_bytes(job.dim) + 8 + (4 if users.bias is not None else 0)
    beside = _Beside.of(job, row_bytes)
    row_bytes += beside.row_bytes
    table_bytes = users.rows * row_bytes
    shards = max(1, math.ceil(table_bytes / shard_bytes))
    parameters = _parameters(job)
    encoder_bytes = parameters * _FP32_BYTES
    files = {
        "encoder/model.onnx": Quantity(
            encoder_bytes, "bytes", f"{parameters:,} parameters x {_FP32_BYTES} bytes (fp32)"
        ),
        "users/": Quantity(
            table_bytes + shards * beside.shard_bytes,
            "bytes",
            f"{users.rows:,} rows x {row_bytes} bytes ({quant} codes and scale, id{beside.words}) "
            f"+ {shards} shard(s) x {beside.shard_bytes:,} bytes (padding{', basis' if beside.sketch else ''})",
        ),
        "tokenizer.json": Quantity((checkpoint.base / "tokenizer.json").stat().st_size, "bytes", "copied"),
    }
    disk = sum(file.value for file in files.values())
    shard = min(shard_bytes, table_bytes)
    decoded = math.ceil(shard / row_bytes) * job.dim * _FP32_BYTES if beside.row_bytes else 0
    memory = _INTERPRETER_BYTES + _MODEL_COPIES * encoder_bytes + _SHARD_COPIES * shard + decoded
    return Estimate(
        files=files,
        disk=Quantity(disk, "bytes", "sum of the files"),
        memory=Quantity(
            memory,
            "bytes",
            f"{_INTERPRETER_BYTES:,} libraries + {_MODEL_COPIES} x {encoder_bytes:,} encoder "
            f"+ {_SHARD_COPIES} x {shard:,} shard" + (f" + {decoded:,} its rows in fp32" if decoded else ""),
        ),
        time=_time(job, beside, encoder_bytes),
    )


@dataclass(frozen=True)
class _Beside:
    """What a table has besides codes, scales and ids.

    Attributes:
        sketch: bytes a row of the sketch at most; 0 without.
        bounds: bytes a row of the tiles' bounds at most; 0 without.
        shard_bytes: bytes a shard, whatever its rows: the sketch's basis, and a page of padding for each tensor.
    """

    sketch: int
    bounds: int
    shard_bytes: int

    @classmethod
    def of(cls, job: Job, row_bytes: int) -> _Beside:
        """Return what ``yes`` asks for, and ``auto`` where rows of ``row_bytes`` take more than one shard."""
        options, users = job.options.table, job.checkpoint.users
        several = users.rows * row_bytes > options.shard_bytes
        maker = SketchMaker(options.sketch, options.quant, job.dim)
        tiles = TileMaker(options.cluster, job.dim, tile_rows(row_bytes, options.shard_bytes))
        sketch_bytes = maker.row_bytes if several or options.sketch == "yes" else 0
        bounds_bytes = tiles.row_bytes if several or options.cluster == "yes" else 0
        pages = _PLAIN_TENSORS + (_SKETCH_TENSORS if sketch_bytes else 0) + (_BOUNDS_TENSORS if bounds_bytes else 0)
        basis = whole_groups(job.dim) * job.dim * _FP32_BYTES if sketch_bytes else 0
        return cls(sketch_bytes, bounds_bytes, basis + pages * PAGE_BYTES)

    @property
    def row_bytes(self) -> int:
        return self.sketch + self.bounds

    @property
    def words(self) -> str:
        return (", sketch" if self.sketch else "") + (", bounds" if self.bounds else "")


def _parameters(job: Job) -> int:
    """Count what the exported encoder holds: the base model without a language-model head, features and mapper."""
    tensors = job.checkpoint.base_model.tensors()
    base = sum(math.prod(tensor.shape) for name, tensor in tensors.items() if not name.startswith("lm_head."))
    behind = [*job.checkpoint.features.tensors.values(), *job.checkpoint.mapper.weights.values()]
    return base + sum(weight.size for weight in behind)


def _time(job: Job, beside: _Beside, encoder_bytes: int) -> Quantity:
    users, parity_texts = job.checkpoint.users, len(job.sample)
    rows_per_s = _PROBE_ROWS / _encoding_s(job.dim, job.options.table.quant, beside)
    table_s = users.rows / rows_per_s
    export_s = _EXPORT_S + _EXPORT_S_PER_GB * encoder_bytes / 1e9
    parity_s = parity_texts / _PARITY_TEXTS_PER_S
    return Quantity(
        table_s + export_s + parity_s,
        "seconds",
        f"{users.rows:,} rows / {rows_per_s:,.0f} rows/s (measured now) + {export_s:.0f} s export "
        f"+ {parity_texts} parity texts / {_PARITY_TEXTS_PER_S:.0f} per s",
    )


def _encoding_s(dim: int, quant: str, beside: _Beside) -> float:
    """Encode some rows as the table will have them."""
    rows = np.random.default_rng(0).standard_normal((_PROBE_ROWS, dim)).astype(np.float32)
    basis = sketch.make_basis(dim, whole_groups(dim)) if beside.sketch else None
    tiles = TileMaker("yes" if beside.bounds else "no", dim, _PROBE_ROWS)
    tiles.decide(whole_table=False)
    began = time.perf_counter()
    stored = codec(quant).encode(rows)
    if tiles.clusters or basis is not None:
        decoded = ShardRows(codec(quant).decode(stored, dim))
        if tiles.clusters:
            decoded.reorder(tiles.order(decoded))
            tiles.tensors(decoded, None)
        if basis is not None:
            sketch.encode(decoded.part(0, len(decoded)), basis)
    return time.perf_counter() - began


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/meminfo has a line MemAvailable")
