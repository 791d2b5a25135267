"""The cost of ``build --dim auto`` from long rows: time and memory, beside the time that reading the rows takes.

    python benchmarks/wide_rows.py WORK TEXTS [--rows 1e6] [--dim 4096] [--quant int8]

TEXTS is a file of item texts, at least as many as dimensions. The item tower is all-MiniLM-L6-v2 with a dense layer to
--dim numbers. Rows are float16 in one file (WORK/users.npy, kept for the next run): sums of the 384 directions that
item vectors fill, in sizes that fall like those of trained tables, and noise in all dimensions. Memory is that of the
process of the build, without pages of mapped files, read every 50 milliseconds. Prints a JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from fllm_export import Checkpoint, build
from fllm_export.sweep.machine import private_bytes
from fllm_export.training.encoders import choose_encoder

F32 = npt.NDArray[np.float32]
CHUNK, NOISE, STATE = 8_192, 0.3, 384
READ_CHUNK = 1 << 24
MIN_RECALL = 0.9  # drawn rows are longer than trained ones in directions where item vectors are short


def main() -> None:
    """Make the rows, build, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--dim", type=int, default=4_096)
    parser.add_argument("--quant", default="int8")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    layer = np.random.default_rng(0).standard_normal((options.dim, STATE), dtype=np.float32) / np.float32(STATE**0.5)
    users = rows_file(options.work, int(options.rows), layer)
    checkpoint = Checkpoint.from_sentence_transformer(tower(options.work / "tower", layer), users=users)
    out = options.work / "bundle"
    shutil.rmtree(out, ignore_errors=True)
    read = reading_seconds(users)
    with peak_memory() as memory:
        began, computing = time.perf_counter(), time.process_time()
        bundle = build(
            checkpoint, out, calibration=options.texts, quant=options.quant, dim="auto", min_recall=MIN_RECALL
        )
        seconds, processor = time.perf_counter() - began, time.process_time() - computing
    found: dict[str, Any] = {
        "benchmark": "wide rows",
        "rows": int(options.rows),
        "dim": options.dim,
        "quant": options.quant,
        "dim_chosen": bundle.manifest.dim,
        "recall@100": bundle.parity().recall[100],
        "table_bytes": sum(path.stat().st_size for path in (out / "users").iterdir()),
        "build_s": round(seconds, 1),
        "build_processor_s": round(processor, 1),
        "peak_memory_gb": round(memory[0] / 1e9, 3),
        "rows_file_bytes": users.stat().st_size,
        "read_file_s": round(read, 1),
    }
    print(json.dumps(found))


def tower(directory: Path, layer: F32) -> Path:
    """Write a sentence-transformers directory: MiniLM, mean pooling and a dense layer [dim, 384]."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(choose_encoder("minilm", directory).path, directory)
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(kinds)
    ]
    identity = "torch.nn.modules.linear.Identity"
    configs = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": STATE, "pooling_mode_mean_tokens": True},
        "2_Dense/config.json": {
            "in_features": STATE,
            "out_features": len(layer),
            "bias": False,
            "activation_function": identity,
        },
    }
    for name, content in configs.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(json.dumps(content))
    save_file({"linear.weight": layer}, directory / "2_Dense" / "model.safetensors")
    return directory


def rows_file(work: Path, rows: int, layer: F32) -> Path:
    """Return the file of the user rows, float16 [rows, dim]; it is written where it is not there yet."""
    path = work / "users.npy"
    if path.exists() and np.load(path, mmap_mode="r").shape == (rows, len(layer)):
        return path
    sizes = np.arange(1, STATE + 1, dtype=np.float32) ** np.float32(-0.5)
    directions = (layer * sizes).T.copy()
    stored = np.lib.format.open_memmap(path, "w+", np.float16, (rows, len(layer)))
    for first in range(0, rows, CHUNK):
        generator = np.random.default_rng([1, first])
        count = min(CHUNK, rows - first)
        made = generator.standard_normal((count, STATE), dtype=np.float32) @ directions
        made += np.float32(NOISE * made.std()) * generator.standard_normal(made.shape, dtype=np.float32)
        stored[first : first + count] = made
    stored.flush()
    return path


def reading_seconds(path: Path) -> float:
    """Return how long it takes to read a file from beginning to end, whatever of it the system holds in memory."""
    began = time.perf_counter()
    with path.open("rb") as file:
        while file.read(READ_CHUNK):
            pass
    return time.perf_counter() - began


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Give a list whose one number is the peak of the memory that is no file's, in bytes."""
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            peak[0] = max(peak[0], private_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main()
