"""A bundle's encoder plan on a GPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fllm_export.engines.tensorrt.choice import choose_plan
from fllm_export.engines.tensorrt.gpu import Gpu, Memory, Pinned, Stream
from fllm_export.engines.tensorrt.launcher import Bound, Launcher
from fllm_export.engines.tensorrt.loaded_plan import LoadedPlan
from fllm_export.engines.tensorrt.plan import Plan
from fllm_export.errors import BundleError, UsageError

PRECISIONS = ("fp16", "bf16", "fp8")
"""What plans are preferred in, where none is named."""


class _Room(NamedTuple):
    """Memory for the tensors, on both sides."""

    gpu: Memory
    host: Pinned


class TensorRtEncoder:
    """Runs an encoder plan. Safe to use from many threads at once; they take turns.

    Args:
        plans: ``encoder/plans`` of the bundle.
        precision: of the plan; None takes the first of :data:`PRECISIONS` that there is.
        dim: numbers of an item vector.

    Raises:
        BudgetError: memory does not suffice.
        BundleError: a plan is damaged, or gives vectors of another length.
        HardwareError: TensorRT, a GPU, or a plan for both is missing.
    """

    def __init__(self, plans: Path, precision: str | None, dim: int) -> None:
        wanted = PRECISIONS if precision is None else (precision,)

        def rank(plan: Plan) -> int | None:
            return wanted.index(plan.precision) if plan.precision in wanted else None

        options = "" if precision is None else f" --precision {precision}"
        options += " --calibration ITEMS" if precision == "fp8" else ""
        library, chosen = choose_plan(plans, rank, options)
        self.name = chosen.file
        self._plan = LoadedPlan(library, plans / chosen.file)
        self._plan.check_tensors({"input_ids", "attention_mask"}, {"item_vector"})
        if self._plan.shape("item_vector")[1] != dim:
            raise BundleError(
                f"{self._plan.path} gives vectors of {self._plan.shape('item_vector')[1]} numbers",
                expected=f"{dim}, as the manifest says",
                fix="Build the plan again",
            )
        self._gpu, self._dim = Gpu(), dim
        self._stream = Stream(self._gpu)
        self._launchers: dict[int, Launcher] = {}
        last = self._plan.profiles - 1
        self.most_items, self.most_tokens = self._plan.range_of("input_ids", last)[1]
        self._least_tokens = self._plan.range_of("input_ids", 0)[0][1]
        self._tokens_bytes = 8 * self.most_items * self.most_tokens
        size = 2 * self._tokens_bytes + 4 * self.most_items * dim
        self._room = _Room(Memory(self._gpu, size), Pinned(self._gpu, size))
        self._lock = threading.Lock()

    def run(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return item vectors, float32 [B, d], for token ids and mask, int64 [B, tokens].

        Raises:
            UsageError: there are more tokens than the plan takes.
        """
        items, tokens = input_ids.shape
        if items > self.most_items or not self._least_tokens <= tokens <= self.most_tokens:
            raise UsageError(
                f"{items} items of {tokens} tokens were given to the plan {self.name}",
                expected=f"at most {self.most_items} items of {self._least_tokens} to {self.most_tokens} tokens",
            )
        with self._lock:
            return self._run(input_ids, attention_mask)

    def _run(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        items, tokens = shape = input_ids.shape
        offsets = {"input_ids": 0, "attention_mask": self._tokens_bytes}
        for name, array in (("input_ids", input_ids), ("attention_mask", attention_mask)):
            self._room.host.array(np.int64, shape, offsets[name])[:] = array
            address = self._room.gpu.address + offsets[name]
            self._stream.copy(address, self._room.host.address + offsets[name], 8 * items * tokens)
        vectors = 2 * self._tokens_bytes
        profile = 0 if items == 1 else self._plan.profiles - 1
        if profile not in self._launchers:
            self._launchers[profile] = Launcher(self._gpu, self._plan, profile, self._stream)
        tensors = [Bound(name, shape, self._room.gpu.address + offset) for name, offset in offsets.items()]
        output = Bound("item_vector", (items, self._dim), self._room.gpu.address + vectors)
        self._launchers[profile].launch((*tensors, output))
        size = 4 * items * self._dim
        self._stream.copy(self._room.host.address + vectors, self._room.gpu.address + vectors, size)
        self._stream.finish()
        self._plan.keep_cache()
        found: npt.NDArray[np.float32] = self._room.host.array(np.float32, (items, self._dim), vectors).copy()
        return found
