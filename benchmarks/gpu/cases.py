"""The cases: tables, answers checked against the definition, times beside what bounds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu import plans
from benchmarks.gpu.codecs import CODECS
from benchmarks.gpu.definition import CHUNK_ROWS, defined, is_as_defined
from benchmarks.gpu.device import Device
from benchmarks.gpu.encoder import llama_encoder
from benchmarks.gpu.engine import Engine
from benchmarks.gpu.rivals import torch_fp16, torch_int8

BLOCK_ROWS = 15 * CHUNK_ROWS
LEAST_ROWS = 5000
LEAST_BYTES = 300_000
"""Of the memory that a streamed table is given."""


class Bench:
    """Runs cases and collects lines.

    Args:
        device: where torch works and times are taken.
        library: the host's side of the engine.
        scale: times the rows of every table.
    """

    def __init__(self, device: Device, library: Path, scale: float) -> None:
        self.device, self.library, self.scale = device, library, scale
        self.ceilings = device.ceilings()
        self.lines: list[dict[str, object]] = []

    def table(
        self, rows: int, dim: int, gpu_bytes: int = 0, codec: str = "int8"
    ) -> tuple[Engine, torch.Tensor, torch.Tensor, int]:
        """Return a table of about ``rows`` rows, and the block that it repeats."""
        wanted = max(LEAST_ROWS, round(rows * self.scale))
        block_rows = min(BLOCK_ROWS, wanted)
        blocks = max(1, round(wanted / block_rows))
        generator = torch.Generator(device=self.device.torch).manual_seed(dim)
        codes = CODECS[codec].random(block_rows, dim, generator)
        scales = torch.rand(block_rows, device=self.device.torch, generator=generator) * 1e-3 + 1e-3
        engine = Engine(self.library, CODECS[codec], codes, scales, blocks, gpu_bytes)
        return engine, codes, scales, blocks

    def say(self, case: str, value: float, unit: str, bar: str, met: bool, exact: bool, note: str = "") -> None:
        """Print one line and keep it."""
        verdict = "met" if met and exact else "MISSED" if exact else "WRONG ANSWER"
        print(f"{case:<44}{value:>10.2f} {unit:<10}{bar:<34}{verdict:<14}{note}", flush=True)
        self.lines.append(
            {"case": case, "value": value, "unit": unit, "bar": bar, "met": met, "exact": exact, "note": note}
        )

    def scans(self, name: str, rows: int, dim: int, batch: int, codec: str = "int8") -> None:
        """One item at the speed of memory; a batch at the speed of arithmetic, or of memory still."""
        engine, codes, scales, blocks = self.table(rows, dim, codec=codec)
        items = min(batch, self.device.most_items)
        z = np.random.default_rng(0).standard_normal((items, dim)).astype(np.float32)
        expected = defined(codes, scales, blocks, z, 100)
        first = tuple(part[:1] for part in expected)
        one = self.device.call_seconds(lambda: engine.search(z[:1], 100))
        exact = is_as_defined(engine.search(z[:1], 100), first, log_probs=True)
        read = engine.rows * (dim * CODECS[codec].bits / 8 + 4) / self.ceilings["device_read_gb_s"] / 1e9
        self.say(f"{name}, one item, ms", one * 1e3, "ms", f"<= 1.25 x read ({read * 1e3:.2f} ms)", one <= 1.25 * read,
                 exact, f"{one / read:.2f} x")  # fmt: skip
        for log_probs in (True, False):
            many = self.device.call_seconds(lambda log_probs=log_probs: engine.search(z, 100, log_probs=log_probs))
            exact = is_as_defined(engine.search(z, 100, log_probs=log_probs), expected, log_probs=log_probs)
            label = f"{name}, {batch} items" + ("" if log_probs else ", no log-probs")
            if batch == 64:
                self.say(label, many * 1e3, "ms", f"<= 1.5 x one item ({one * 1e3:.2f} ms)", many <= 1.5 * one, exact,
                         f"{many / one:.2f} x")  # fmt: skip
            else:
                # Two limbs an item: twice the products of one matrix, of bytes or, for fp8, of halves.
                rate = 2 * 2 * engine.rows * dim * items / many / 1e12
                top = self.ceilings["fp16_tops" if codec == "fp8" else "int8_tops"]
                self.say(label, rate, "TOPS", f">= 50 % of {top:.0f} TOPS", rate >= top / 2, exact,
                         f"{100 * rate / top:.0f} %, {many * 1e3:.2f} ms")  # fmt: skip
        engine.close()

    def rivals(self) -> None:
        """The same rows by torch, in chunks: with what fp16 rounds away, and as exactly as ours."""
        engine, codes, scales, blocks = self.table(20_000_000, 128)
        z = np.random.default_rng(1).standard_normal((min(64, self.device.most_items), 128)).astype(np.float32)
        expected = defined(codes, scales, blocks, z, 100)
        half = codes.half() * scales[:, None].half()
        for batch in (1, len(z)):
            part = z[:batch]
            ours = self.device.call_seconds(lambda part=part: engine.search(part, 100))
            exact = is_as_defined(engine.search(part, 100), tuple(array[:batch] for array in expected), log_probs=True)
            vectors = torch.from_numpy(part).to(self.device.torch)
            fp16 = self.device.call_seconds(lambda v=vectors: torch_fp16(half, v, blocks))
            int8 = self.device.call_seconds(lambda v=vectors: torch_int8(codes, scales, v, blocks))
            for rival, seconds in (("torch fp16", fp16), ("torch int8, two limbs", int8)):
                self.say(f"{batch} items against {rival}", seconds / ours, "x", ">= 5 x", seconds >= 5 * ours, exact,
                         f"{ours * 1e3:.2f} ms, {seconds * 1e3:.2f} ms")  # fmt: skip
        engine.close()

    def streaming(self) -> None:
        """A table of which a quarter fits the memory that is given."""
        limit = max(LEAST_BYTES, int(8e9 * self.scale))
        engine, codes, scales, blocks = self.table(240_000_000, 128, limit)
        z = np.random.default_rng(2).standard_normal((1, 128)).astype(np.float32)
        seconds = self.device.call_seconds(lambda: engine.search(z, 100), 3)
        exact = is_as_defined(engine.search(z, 100), defined(codes, scales, blocks, z, 100), log_probs=True)
        rate, top = engine.streamed_bytes / seconds / 1e9, self.ceilings["host_to_device_gb_s"]
        met = rate >= 0.85 * top
        self.say("larger than the card, streamed", rate, "GB/s", f">= 85 % of {top:.1f} GB/s", met, exact,
                 f"{100 * rate / top:.0f} %")  # fmt: skip
        engine.close()

    def plans(self) -> None:
        """The engine ``tensorrt`` by a head plan built here, where there is a TensorRT."""
        missing = plans.unavailable()
        if missing is not None:
            print(f"{'plans':<44}not measured: {missing}")
            return
        for line in plans.lines(self.device.call_seconds, self.ceilings, self.scale):
            self.say(*line)

    def text_to_users(self) -> None:
        """An encoder of Llama-3.2-1B's shape, random weights, 64 tokens, in torch; then 10^9 users."""
        engine, codes, scales, blocks = self.table(1_000_000_000, 64)
        encode = llama_encoder(64, self.device.shape, self.device.torch)
        z = encode()
        exact = is_as_defined(engine.search(z, 100), defined(codes, scales, blocks, z, 100), log_probs=True)
        seconds = self.device.call_seconds(lambda: engine.search(encode(), 100))
        self.say("text to top-100, encoder in torch fp16", seconds * 1e3, "ms", "<= 50 ms", seconds <= 0.05, exact,
                 f"encoder alone {self.device.call_seconds(encode) * 1e3:.2f} ms")  # fmt: skip
        engine.close()


CASES: dict[str, Callable[[Bench], None]] = {
    "billion": lambda bench: bench.scans("10^9 x 64", 1_000_000_000, 64, 64),
    "wide": lambda bench: bench.scans("10^8 x 256", 100_000_000, 256, 128),
    "wide-int2": lambda bench: bench.scans("10^8 x 256 int2", 100_000_000, 256, 128, "int2"),
    "wide-fp8": lambda bench: bench.scans("10^8 x 256 fp8", 100_000_000, 256, 128, "fp8"),
    "torch": lambda bench: bench.rivals(),
    "streamed": lambda bench: bench.streaming(),
    "text": lambda bench: bench.text_to_users(),
    "plans": lambda bench: bench.plans(),
}
