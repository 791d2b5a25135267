"""How fast tables are written: each stage by NumPy and by libfllm, and whole tables beside memcpy and the disk.

    python benchmarks/writing.py WORK [--rows N] [--dim D]

WORK is a directory on the disk that tables are written to. Rows are a mixture of 1,000 Gaussians, made chunk by chunk;
making them is not counted. Prints a JSON line per measurement: microseconds of wall and of processor time per row.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export import UserTable
from fllm_export.calibration.transform import Transform
from fllm_export.table import clusters, native, sketch, tile_bounds
from fllm_export.table.codec_names import CODEC_NAMES
from fllm_export.table.codecs import codec
from fllm_export.table.options import TableOptions
from fllm_export.table.writer import TableWriter

F32 = npt.NDArray[np.float32]
CHUNK, CENTRES, STAGE_ROWS, TILE_ROWS, REPEATS = 65_536, 1_000, 65_536, 1_024, 3


class Mixture:
    """Rows of 1,000 Gaussians of a third of the spread of their centres, and the seconds that making them took."""

    def __init__(self, rows: int, dim: int) -> None:
        self.rows, self.dim, self.seconds, self.processor = rows, dim, 0.0, 0.0
        self._centres = np.random.default_rng(0).standard_normal((CENTRES, dim), dtype=np.float32)

    def chunks(self) -> Iterator[F32]:
        """Yield all rows."""
        for start in range(0, self.rows, CHUNK):
            began, used = time.perf_counter(), time.process_time()
            generator = np.random.default_rng([1, start])
            count = min(CHUNK, self.rows - start)
            rows = generator.standard_normal((count, self.dim), dtype=np.float32)
            rows = rows * np.float32(0.3) + self._centres[generator.integers(0, CENTRES, count)]
            self.seconds += time.perf_counter() - began
            self.processor += time.process_time() - used
            yield rows


@contextmanager
def numpy_alone() -> Iterator[None]:
    """Let the NumPy code do the work."""
    module, native._core = native._core, None  # type: ignore[assignment]
    try:
        yield
    finally:
        native._core = module


def stages(rows: F32) -> dict[str, Callable[[], object]]:
    """Return each stage of writing such rows."""
    dim = rows.shape[1]
    found: dict[str, Callable[[], object]] = {
        f"encode {name}": lambda name=name: codec(name).encode(rows)  # type: ignore[misc]
        for name in CODEC_NAMES
    }
    stored = codec("int8").encode(rows)
    directions = clusters.principal_directions(rows[:16_384])
    points = clusters.features(rows, directions)
    basis = sketch.make_basis(dim, -(-dim // 16) * 16)
    return found | {
        "decode int8": lambda: codec("int8").decode(stored, dim),
        "features": lambda: clusters.features(rows, directions),
        "order": lambda: clusters.clustered(points, TILE_ROWS),
        "tile bounds": lambda: tile_bounds.describe_tiles(rows, None, TILE_ROWS),
        "sketch": lambda: sketch.encode(rows, basis),
    }


def per_row(call: Callable[[], object], rows: int, repeats: int) -> dict[str, float]:
    """Return the median wall and processor time of a call, in microseconds per row."""
    times = []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - began, time.process_time() - used))
    wall, processor = np.median(times, 0) / rows * 1e6
    return {"us": round(float(wall), 3), "processor_us": round(float(processor), 3)}


def measure_stages(dim: int) -> None:
    """Print each stage by NumPy and by libfllm."""
    rows = next(Mixture(STAGE_ROWS, dim).chunks())
    for name, call in stages(rows).items():
        call()
        ours = per_row(call, len(rows), REPEATS)
        with numpy_alone():
            plain = per_row(call, len(rows), 1)
        show(
            stage=name, dim=dim, libfllm=ours, numpy=plain, ratio=round(plain["processor_us"] / ours["processor_us"], 1)
        )


def measure_create(work: Path, rows: int, dim: int) -> None:
    """Print what `UserTable.create` with its default options takes."""
    mixture = Mixture(rows, dim)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        began, used = time.perf_counter(), time.process_time()
        UserTable.create(Path(folder) / "t", mixture.chunks())
        wall, processor = time.perf_counter() - began - mixture.seconds, time.process_time() - used - mixture.processor
    chunk = next(mixture.chunks())
    copy = np.empty_like(chunk)
    copying = per_row(lambda: np.copyto(copy, chunk), len(chunk), REPEATS)["us"] * rows / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    times = {"seconds": round(wall, 2), "processor_s": round(processor, 2), "memcpy_s": round(copying, 2)}
    show(create=rows, dim=dim, **times, peak_rss_gib=round(peak, 2))


def measure_rate(work: Path, rows: int, dim: int) -> None:
    """Print rates of writing plain int8 rows through a rotation, of copying the same rows, and of the disk."""
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((dim, dim)))[0]
    transform, mixture = Transform(turn, turn), Mixture(rows, dim)
    copying, copy = 0.0, np.empty((CHUNK, dim), np.float32)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        writer = TableWriter(Path(folder) / "t", TableOptions(sketch="no", cluster="no"), dim=dim)
        writing = 0.0
        for chunk in mixture.chunks():
            began = time.perf_counter()
            writer.add(transform.rows(chunk))
            writing += time.perf_counter() - began
            began = time.perf_counter()
            np.copyto(copy[: len(chunk)], chunk)
            copying += time.perf_counter() - began
        began = time.perf_counter()
        writer.finish()
        writing += time.perf_counter() - began
        data = b"".join(path.read_bytes() for path in (Path(folder) / "t").glob("*.safetensors"))
        began = time.perf_counter()
        with (Path(folder) / "plain").open("wb") as file:
            file.write(data)
            os.fsync(file.fileno())
        disk = time.perf_counter() - began
    show(written=rows, dim=dim, seconds=round(writing, 2), memcpy_s=round(copying, 2), disk_s=round(disk, 2))


def show(**facts: Any) -> None:
    """Print a measurement."""
    print(json.dumps(facts), flush=True)


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--dim", type=int, default=128)
    given = parser.parse_args()
    measure_stages(given.dim)
    measure_create(given.work, given.rows, given.dim)
    measure_rate(given.work, given.rows, given.dim)


if __name__ == "__main__":
    main()
