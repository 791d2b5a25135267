"""The engine ``cuda`` beside a GPU's own ceilings and beside torch, every answer checked against the definition.

    python3 benchmarks/gpu.py [--scale 1.0] [--only CASE ...] [--json results.json]

Needs Python, torch with CUDA, nvcc and a C++ compiler; nothing of fllm-export has to be installed, and nothing is
downloaded. The case ``plans`` needs TensorRT too, and says what is missing where it cannot run. Times are wall clock
around the whole call, host included; ceilings are by CUDA events. ``--scale`` shrinks every table for smaller GPUs.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
LIBFLLM = ROOT / "engines" / "libfllm"
CHUNK_ROWS = 1 << 20
BLOCK_ROWS = 15 * CHUNK_ROWS
LARGEST = 8127


def compile_engine(folder: Path) -> Path:
    """Build the host's side of the engine, without what reads files; return the library."""
    sources = [ROOT / "benchmarks" / "gpu_engine.cpp", *sorted((LIBFLLM / "cuda" / "host").glob("*.cpp"))]
    parts = [
        "status",
        "machine/companion",
        "machine/environment",
        "machine/fork",
        "machine/pool",
        "search/query",
        "search/engine",
    ]
    sources += [LIBFLLM / "src" / f"{part}.cpp" for part in parts]
    library = folder / "libgpu_engine.so"
    options = ["-std=c++20", "-O2", "-shared", "-fPIC", "-ffp-contract=off", "-pthread"]
    paths = [f"-I{LIBFLLM}", f"-I{LIBFLLM / 'src'}", f"-I{LIBFLLM / 'include'}"]
    subprocess.run([os.environ.get("CXX", "g++"), *options, *paths, *sources, "-o", library, "-ldl"], check=True)
    return library


def compile_driver(folder: Path) -> Path:
    """Build the kernels for the GPU at hand; return the library."""
    major, minor = torch.cuda.get_device_capability()
    target = f"{major}{minor}" + ("a" if major == 9 else "")
    library = folder / "libfllm_cuda.so"
    command = ["nvcc", "-std=c++20", "-O3", "-shared", "-Xcompiler", "-fPIC", f"-I{LIBFLLM}"]
    code = f"-gencode=arch=compute_{target},code=sm_{target}"
    subprocess.run([*command, code, LIBFLLM / "cuda" / "driver.cu", "-o", library], check=True)
    return library


class Engine:
    """A table in GPU memory: ``blocks`` times the same rows, under ids that count up.

    Args:
        library: what :func:`compile_engine` built; ``FLLM_CUDA_LIBRARY`` names the driver.
        codes: int8 or float8_e4m3fn [rows, dim].
        scales: float32 [rows], of either device.
        blocks: how often the rows are taken.
        gpu_bytes: of the GPU's memory at most; 0: what is free.
    """

    def __init__(
        self, library: Path, codes: torch.Tensor, scales: torch.Tensor, blocks: int = 1, gpu_bytes: int = 0
    ) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.gpu_engine_open.restype = ctypes.c_void_p
        self._library.gpu_engine_streamed_bytes.restype = ctypes.c_uint64
        self._message = ctypes.create_string_buffer(512)
        self.rows, self.dim = len(codes) * blocks, codes.shape[1]
        ids = np.arange(self.rows, dtype=np.int64)
        stored, row_scales = codes.cpu().view(torch.uint8).numpy(), scales.cpu().numpy()
        handle = self._library.gpu_engine_open(
            stored.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int(codes.dtype == torch.float8_e4m3fn),
            *(array.ctypes.data_as(ctypes.c_void_p) for array in (row_scales, ids)),
            *(ctypes.c_uint64(number) for number in (len(codes), blocks)),
            ctypes.c_uint32(self.dim),
            ctypes.c_uint64(gpu_bytes),
            self._message,
        )
        if handle is None:
            raise RuntimeError(self._message.value.decode())
        self._handle = ctypes.c_void_p(handle)

    @property
    def streamed_bytes(self) -> int:
        """Bytes that every pass copies from the host."""
        return int(self._library.gpu_engine_streamed_bytes(self._handle))

    def search(self, z: np.ndarray, k: int, *, log_probs: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ids int64 [B, k], scores float32 [B, k] and logsumexp float64 [B] for float32 z [B, dim]."""
        ids, scores = np.empty((len(z), k), np.int64), np.empty((len(z), k), np.float32)
        logsumexp = np.empty(len(z))
        failed = self._library.gpu_engine_search(
            self._handle,
            z.ctypes.data_as(ctypes.c_void_p),
            *(ctypes.c_uint64(number) for number in (len(z), k)),
            ctypes.c_int(log_probs),
            *(array.ctypes.data_as(ctypes.c_void_p) for array in (ids, scores, logsumexp)),
            self._message,
        )
        if failed:
            raise RuntimeError(self._message.value.decode())
        return ids, scores, logsumexp

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._library.gpu_engine_close(self._handle)


def defined(
    codes: torch.Tensor, scales: torch.Tensor, blocks: int, z: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what :meth:`Engine.search` must: whole-number sums, float64, (score descending, id ascending)."""
    rows = len(codes)
    ids, scores, logsumexp = [], [], []
    for vector in z:
        scale = float(np.abs(vector).max()) / LARGEST
        whole = torch.from_numpy(np.rint(vector.astype(np.float64) / scale)).to(codes.device)
        found = torch.empty(rows, dtype=torch.float32, device=codes.device)
        for first in range(0, rows, CHUNK_ROWS):
            part = slice(first, first + CHUNK_ROWS)
            # Sums of whole numbers below 2^53 are exact in float64, in any order.
            found[part] = (codes[part].float().double() @ whole * (scales[part].double() * scale)).float()
        wide = found.double()
        logsumexp.append(float(torch.logsumexp(wide, 0)) + math.log(blocks))
        need = min(rows, -(-k // blocks) + 1)
        floor = torch.topk(found, need).values[-1]
        chosen = torch.nonzero(found >= floor).flatten()
        users = (chosen[None, :] + rows * torch.arange(blocks, device=codes.device)[:, None]).flatten().cpu().numpy()
        keys = found[chosen].repeat(blocks).cpu().numpy()
        order = np.lexsort((users, -keys))[:k]
        ids.append(users[order])
        scores.append(keys[order])
    return np.array(ids), np.array(scores), np.array(logsumexp)


def is_as_defined(found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...], *, log_probs: bool) -> bool:
    """Return whether ids, order and scores have the same bits, and the denominators agree to 1e-5."""
    same = np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])
    return same and (not log_probs or np.allclose(found[2], expected[2], rtol=1e-5, atol=1e-4))


# ---- what the GPU can do


def event_seconds(work: Callable[[], object], repeats: int = 10) -> float:
    """Return the median time of a GPU's work by CUDA events, in seconds."""
    work()
    times = []
    for _ in range(repeats):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        work()
        ended.record()
        ended.synchronize()
        times.append(began.elapsed_time(ended) / 1e3)
    return statistics.median(times)


def call_seconds(work: Callable[[], object], repeats: int = 10) -> float:
    """Return the median wall-clock time of a call, in seconds."""
    work()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def ceilings() -> dict[str, float]:
    """Measure bandwidths in GB/s and the matrix rates in 10^12 operations a second."""
    bytes_ = 4 << 30
    source = torch.ones(bytes_ // 4, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    copied = 2 * bytes_ / event_seconds(lambda: target.copy_(source)) / 1e9
    read = max(bytes_ / event_seconds(work) / 1e9 for work in (lambda: source.sum(), lambda: source.max()))
    pinned = torch.empty(1 << 30, dtype=torch.uint8).pin_memory()
    there = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    to_device = (1 << 30) / event_seconds(lambda: there.copy_(pinned, non_blocking=True)) / 1e9
    n = 8192
    a, b = (torch.randint(-127, 128, (n, n), dtype=torch.int8, device="cuda") for _ in range(2))
    rate = 2 * n**3 / event_seconds(lambda: torch._int_mm(a, b.t())) / 1e12
    halves = torch.randn(n, n, device="cuda").half()
    half_rate = 2 * n**3 / event_seconds(lambda: halves @ halves.t()) / 1e12
    return {
        "device_read_gb_s": max(read, copied),
        "device_copy_gb_s": copied,
        "host_to_device_gb_s": to_device,
        "int8_tops": rate,
        "fp16_tops": half_rate,
    }


# ---- the cases


class Bench:
    """Runs cases and collects lines."""

    def __init__(self, library: Path, scale: float) -> None:
        self.library = library
        self.scale = scale
        self.ceilings = ceilings()
        self.lines: list[dict[str, object]] = []

    def table(
        self, rows: int, dim: int, gpu_bytes: int = 0, dtype: torch.dtype = torch.int8
    ) -> tuple[Engine, torch.Tensor, torch.Tensor, int]:
        """Return a table of about ``rows`` rows, and the block that it repeats."""
        blocks = max(1, round(rows * self.scale / BLOCK_ROWS))
        generator = torch.Generator(device="cuda").manual_seed(dim)
        codes = torch.empty((BLOCK_ROWS, dim), dtype=dtype, device="cuda")
        for part in codes.split(CHUNK_ROWS):
            part.copy_(torch.randint(-127, 128, part.shape, device="cuda", generator=generator).to(dtype))
        scales = torch.rand(BLOCK_ROWS, device="cuda", generator=generator) * 1e-3 + 1e-3
        engine = Engine(self.library, codes, scales, blocks, gpu_bytes)
        return engine, codes, scales, blocks

    def say(self, case: str, value: float, unit: str, bar: str, met: bool, exact: bool, note: str = "") -> None:
        """Print one line and keep it."""
        verdict = "met" if met and exact else "MISSED" if exact else "WRONG ANSWER"
        print(f"{case:<44}{value:>10.2f} {unit:<10}{bar:<34}{verdict:<14}{note}", flush=True)
        self.lines.append({"case": case, "value": value, "unit": unit, "bar": bar, "met": met, "exact": exact})

    def scans(self, name: str, rows: int, dim: int, batch: int, dtype: torch.dtype = torch.int8) -> None:
        """One item at the speed of memory; a batch at the speed of arithmetic, or of memory still."""
        engine, codes, scales, blocks = self.table(rows, dim, dtype=dtype)
        z = np.random.default_rng(0).standard_normal((batch, dim)).astype(np.float32)
        expected = defined(codes, scales, blocks, z, 100)
        first = tuple(part[:1] for part in expected)
        one = call_seconds(lambda: engine.search(z[:1], 100))
        exact = is_as_defined(engine.search(z[:1], 100), first, log_probs=True)
        read = engine.rows * (dim + 4) / self.ceilings["device_read_gb_s"] / 1e9
        self.say(f"{name}, one item, ms", one * 1e3, "ms", f"<= 1.25 x read ({read * 1e3:.2f} ms)", one <= 1.25 * read,
                 exact, f"{one / read:.2f} x")  # fmt: skip
        for log_probs in (True, False):
            many = call_seconds(lambda log_probs=log_probs: engine.search(z, 100, log_probs=log_probs))
            exact = is_as_defined(engine.search(z, 100, log_probs=log_probs), expected, log_probs=log_probs)
            label = f"{name}, {batch} items" + ("" if log_probs else ", no log-probs")
            if batch == 64:
                self.say(label, many * 1e3, "ms", f"<= 1.5 x one item ({one * 1e3:.2f} ms)", many <= 1.5 * one, exact,
                         f"{many / one:.2f} x")  # fmt: skip
            else:
                # Two limbs an item: twice the products of one matrix, of bytes or, for fp8, of halves.
                rate = 2 * 2 * engine.rows * dim * batch / many / 1e12
                top = self.ceilings["int8_tops" if dtype == torch.int8 else "fp16_tops"]
                self.say(label, rate, "TOPS", f">= 50 % of {top:.0f} TOPS", rate >= top / 2, exact,
                         f"{100 * rate / top:.0f} %, {many * 1e3:.2f} ms")  # fmt: skip
        engine.close()

    def rivals(self) -> None:
        """The same rows by torch, in chunks: with what fp16 rounds away, and as exactly as ours."""
        engine, codes, scales, blocks = self.table(20_000_000, 128)
        z = np.random.default_rng(1).standard_normal((64, 128)).astype(np.float32)
        expected = defined(codes, scales, blocks, z, 100)
        half = codes.half() * scales[:, None].half()
        for batch in (1, 64):
            part = z[:batch]
            ours = call_seconds(lambda part=part: engine.search(part, 100))
            exact = is_as_defined(engine.search(part, 100), tuple(array[:batch] for array in expected), log_probs=True)
            vectors = torch.from_numpy(part).cuda()
            fp16 = call_seconds(lambda v=vectors: torch_fp16(half, v, blocks))
            int8 = call_seconds(lambda v=vectors: torch_int8(codes, scales, v, blocks))
            for rival, seconds in (("torch fp16", fp16), ("torch int8, two limbs", int8)):
                self.say(f"{batch} items against {rival}", seconds / ours, "x", ">= 5 x", seconds >= 5 * ours, exact,
                         f"{ours * 1e3:.2f} ms, {seconds * 1e3:.2f} ms")  # fmt: skip
        engine.close()

    def streaming(self) -> None:
        """A table of which a quarter fits the memory that is given."""
        limit = int(8e9 * self.scale)
        engine, codes, scales, blocks = self.table(240_000_000, 128, limit)
        z = np.random.default_rng(2).standard_normal((1, 128)).astype(np.float32)
        seconds = call_seconds(lambda: engine.search(z, 100), 3)
        exact = is_as_defined(engine.search(z, 100), defined(codes, scales, blocks, z, 100), log_probs=True)
        rate, top = engine.streamed_bytes / seconds / 1e9, self.ceilings["host_to_device_gb_s"]
        met = rate >= 0.85 * top
        self.say("larger than the card, streamed", rate, "GB/s", f">= 85 % of {top:.1f} GB/s", met, exact,
                 f"{100 * rate / top:.0f} %")  # fmt: skip
        engine.close()

    def plans(self) -> None:
        """The engine ``tensorrt`` by a head plan built here, where there is a TensorRT."""
        import gpu_plans

        missing = gpu_plans.unavailable()
        if missing is not None:
            print(f"{'plans':<44}not measured: {missing}")
            return
        for line in gpu_plans.lines(call_seconds, self.ceilings, self.scale):
            self.say(*line)

    def text_to_users(self) -> None:
        """An encoder of Llama-3.2-1B's shape, random weights, 64 tokens, in torch; then 10^9 users."""
        engine, codes, scales, blocks = self.table(1_000_000_000, 64)
        encode = llama_encoder(dim=64)
        z = encode()
        exact = is_as_defined(engine.search(z, 100), defined(codes, scales, blocks, z, 100), log_probs=True)
        seconds = call_seconds(lambda: engine.search(encode(), 100))
        self.say("text to top-100, encoder in torch fp16", seconds * 1e3, "ms", "<= 50 ms", seconds <= 0.05, exact,
                 f"encoder alone {call_seconds(encode) * 1e3:.2f} ms")  # fmt: skip
        engine.close()


def torch_fp16(rows: torch.Tensor, z: torch.Tensor, blocks: int) -> torch.Tensor:
    """Top-100 and logsumexp by chunks in fp16, as one writes it in torch."""
    parts, sums = [], []
    for _ in range(blocks):
        for first in range(0, len(rows), CHUNK_ROWS):
            scores = (z.half() @ rows[first : first + CHUNK_ROWS].t()).float()
            parts.append(torch.topk(scores, 100))
            sums.append(torch.logsumexp(scores, 1))
    torch.logsumexp(torch.stack(sums), 0)
    return torch.topk(torch.cat([part.values for part in parts], 1), 100).indices.cpu()


def torch_int8(codes: torch.Tensor, scales: torch.Tensor, z: torch.Tensor, blocks: int) -> torch.Tensor:
    """The same exactness as ours: both limbs by 8-bit products, then float64 scores, by chunks."""
    scale = z.abs().amax(1, keepdim=True).double() / LARGEST
    whole = torch.round(z.double() / scale)
    high = torch.floor((whole + 64) / 128)
    limbs = torch.cat([high, whole - 128 * high]).to(torch.int8)
    padded = torch.zeros((max(32, -(-len(limbs) // 8) * 8), limbs.shape[1]), dtype=torch.int8, device=z.device)
    padded[: len(limbs)] = limbs
    parts, sums = [], []
    for _ in range(blocks):
        for first in range(0, len(codes), CHUNK_ROWS):
            products = torch._int_mm(padded, codes[first : first + CHUNK_ROWS].t())[: len(limbs)].double()
            row_scales = scales[first : first + CHUNK_ROWS].double()
            scores = ((128 * products[: len(z)] + products[len(z) :]) * (row_scales * scale)).float()
            parts.append(torch.topk(scores, 100))
            sums.append(torch.logsumexp(scores, 1))
    torch.logsumexp(torch.stack(sums), 0)
    return torch.topk(torch.cat([part.values for part in parts], 1), 100).indices.cpu()


def llama_encoder(dim: int) -> Callable[[], np.ndarray]:
    """Return a call that encodes one text of 64 tokens to float32 [1, dim], replayed as one CUDA graph."""
    hidden, layers, heads, key_heads, wide, tokens = 2048, 16, 32, 8, 8192, 64

    def weight(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda", dtype=torch.float16) * shape[-1] ** -0.5

    head = hidden // heads
    blocks = [
        {
            "qkv": weight(hidden + 2 * key_heads * head, hidden),
            "out": weight(hidden, hidden),
            "gate_up": weight(2 * wide, hidden),
            "down": weight(hidden, wide),
        }
        for _ in range(layers)
    ]
    embeddings, mapper = weight(128256, hidden), weight(dim, hidden)
    angles = torch.outer(torch.arange(tokens), 500000.0 ** (-torch.arange(0, head, 2) / head)).cuda()
    cos, sin = (torch.cat([f(angles)] * 2, 1).half() for f in (torch.cos, torch.sin))

    def rotated(x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, -1)
        return x * cos + torch.cat([-right, left], -1) * sin

    def forward(ids: torch.Tensor) -> torch.Tensor:
        x = embeddings[ids]
        for block in blocks:
            normal = torch.nn.functional.rms_norm(x, (hidden,))
            q, k, v = (normal @ block["qkv"].t()).split([hidden, key_heads * head, key_heads * head], -1)
            q, k, v = (part.view(tokens, -1, head).transpose(0, 1) for part in (q, k, v))
            k, v = (part.repeat_interleave(heads // key_heads, 0) for part in (rotated(k), v))
            mixed = torch.nn.functional.scaled_dot_product_attention(rotated(q)[None], k[None], v[None], is_causal=True)
            x = x + mixed[0].transpose(0, 1).reshape(tokens, hidden) @ block["out"].t()
            gate, up = (torch.nn.functional.rms_norm(x, (hidden,)) @ block["gate_up"].t()).chunk(2, -1)
            x = x + (torch.nn.functional.silu(gate) * up) @ block["down"].t()
        return (torch.nn.functional.rms_norm(x[-1:], (hidden,)) @ mapper.t()).float()

    with torch.no_grad():
        ids = torch.randint(0, 128256, (tokens,), device="cuda")
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                forward(ids)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            z = forward(ids)

    def encode() -> np.ndarray:
        ids.copy_(torch.randint(0, 128256, (tokens,)))
        graph.replay()
        return z.cpu().numpy()

    return encode


CASES: dict[str, Callable[[Bench], None]] = {
    "billion": lambda bench: bench.scans("10^9 x 64", 1_000_000_000, 64, 64),
    "wide": lambda bench: bench.scans("10^8 x 256", 100_000_000, 256, 128),
    "wide-fp8": lambda bench: bench.scans("10^8 x 256 fp8", 100_000_000, 256, 128, torch.float8_e4m3fn),
    "torch": lambda bench: bench.rivals(),
    "streamed": lambda bench: bench.streaming(),
    "text": lambda bench: bench.text_to_users(),
    "plans": lambda bench: bench.plans(),
}


def facts() -> dict[str, str]:
    """Return what results are worth nothing without."""
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True
    )
    return {
        "device": torch.cuda.get_device_name(),
        "driver": driver.stdout.strip().splitlines()[0] if driver.stdout else "unknown",
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }


def main() -> int:
    """Run the cases; exit 6 without a GPU, 3 when an answer is not as defined."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU that torch can use: nothing was measured", file=sys.stderr)
        return 6
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FLLM_CUDA_LIBRARY"] = str(compile_driver(Path(folder)))
        bench = Bench(compile_engine(Path(folder)), arguments.scale)
        print(", ".join(facts().values()))
        print(", ".join(f"{name} {value:.1f}" for name, value in bench.ceilings.items()))
        for name in arguments.only:
            torch.cuda.empty_cache()
            CASES[name](bench)
    if arguments.json:
        results = {**facts(), "scale": arguments.scale, "ceilings": bench.ceilings, "cases": bench.lines}
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(line["exact"] for line in bench.lines) else 3


if __name__ == "__main__":
    sys.exit(main())
