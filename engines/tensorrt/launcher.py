"""Running a plan on a stream: plainly the first time, as a CUDA graph from the third."""

from __future__ import annotations

from typing import NamedTuple

from fllm_export.engines.tensorrt.gpu import Gpu, Graph, Memory, Stream
from fllm_export.engines.tensorrt.loaded_plan import LoadedPlan, Shape
from fllm_export.errors import HardwareError

MOST_GRAPHS = 2048
"""Of a launcher; the least recently used goes first."""


class Bound(NamedTuple):
    """Where a tensor lies, and its shape where the plan leaves it free."""

    name: str
    shape: Shape
    address: int


Binding = tuple[Bound, ...]
"""All tensors of a plan, for one launch."""


class Launcher:
    """An execution context and the stream that it runs on. One call at a time.

    A graph holds addresses and shapes. TensorRT settles what depends on shapes in the first run after they changed,
    which is why a graph is captured right after a run of the same binding, and scratch memory that moves ends all
    graphs.

    Args:
        gpu: where the plan runs.
        plan: what runs.
        profile: the profile whose shapes it takes.
        stream: where launches are put.
    """

    def __init__(self, gpu: Gpu, plan: LoadedPlan, profile: int, stream: Stream) -> None:
        self._gpu, self._plan, self._stream = gpu, plan, stream
        self._context = plan.create_context()
        self._check(self._context.set_optimization_profile_async(profile, stream.handle), f"profile {profile}")
        self._scratch: Memory | None = None
        # None for a binding that ran once.
        self._graphs: dict[Binding, Graph | None] = {}

    def launch(self, binding: Binding) -> None:
        """Put a run of the plan on the stream."""
        seen = binding in self._graphs
        graph = self._graphs.pop(binding, None)
        if graph is not None:
            self._stream.launch(graph)
        else:
            self._bind(binding)
            self._enqueue()
            if seen:
                self._stream.begin_capture()
                try:
                    self._enqueue()
                finally:
                    graph = self._stream.end_capture()
        self._graphs[binding] = graph  # the last used is the last to go
        if len(self._graphs) > MOST_GRAPHS:
            self._drop(next(iter(self._graphs)))

    def _drop(self, binding: Binding) -> None:
        graph = self._graphs.pop(binding)
        if graph is not None:
            self._stream.finish()  # it may be under way, and goes with this function

    def _bind(self, binding: Binding) -> None:
        for bound in binding:
            if self._plan.is_input(bound.name):
                fits = self._context.set_input_shape(bound.name, bound.shape)
                self._check(fits, f"`{bound.name}` of shape {list(bound.shape)}")
            self._check(self._context.set_tensor_address(bound.name, bound.address), f"the address of `{bound.name}`")
        needed = int(self._context.update_device_memory_size_for_shapes())
        if self._scratch is None or self._scratch.size < needed:
            self._stream.finish()
            self._graphs.clear()
            self._scratch = None  # the old goes before the new comes
            self._scratch = Memory(self._gpu, max(needed, 1))
        self._context.set_device_memory(self._scratch.address, self._scratch.size)

    def _enqueue(self) -> None:
        self._check(self._context.execute_async_v3(self._stream.handle), "a run")

    def _check(self, done: bool, what: str) -> None:
        if not done:
            raise HardwareError(
                f"TensorRT refuses {what} of the plan {self._plan.path.name} ({self._plan.errors})",
                fix="Build the plan again on this machine",
            )
