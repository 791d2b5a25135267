"""A plan that TensorRT has loaded: its tensors, the shapes it takes, and contexts to run it in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fllm_export.engines.tensorrt.library import Library
from fllm_export.engines.tensorrt.log import make_log
from fllm_export.environment import tensorrt_cache
from fllm_export.errors import BundleError, HardwareError
from fllm_export.files import publish

Shape = tuple[int, ...]


class LoadedPlan:
    """A deserialised engine. Contexts of it may run at the same time, each on a stream of its own.

    TensorRT-RTX compiles a plan's kernels where it runs; ``FLLM_TENSORRT_CACHE`` names a folder that keeps them from
    one process to the next.

    Args:
        library: the TensorRT that loads it.
        path: the plan, already checked by :func:`check_plan`.

    Raises:
        HardwareError: TensorRT does not load it.
    """

    def __init__(self, library: Library, path: Path) -> None:
        trt = library.module
        self.path = path
        self._trt, self._library = trt, library
        self._log = make_log(trt, keep_lines=False)
        self._runtime = trt.Runtime(self._log)
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise HardwareError(
                f"{library.name} {library.version} does not load {path} ({self.errors})",
                fix="Build the plan again on this machine",
            )
        self._engine = engine
        self.tensors = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._cache: Any = None
        self._cache_grew = False

    @property
    def errors(self) -> str:
        """The last words of TensorRT's log."""
        return str(self._log.last_errors)

    @property
    def profiles(self) -> int:
        """How many profiles of shapes there are."""
        return int(self._engine.num_optimization_profiles)

    def check_tensors(self, inputs: set[str], outputs: set[str]) -> None:
        """Compare the plan's tensors with those that a caller will give.

        Raises:
            BundleError: they are not the same.
        """
        mode = self._trt.TensorIOMode
        for wanted, kind, words in ((inputs, mode.INPUT, "takes"), (outputs, mode.OUTPUT, "returns")):
            found = {name for name in self.tensors if self._engine.get_tensor_mode(name) == kind}
            if found != wanted:
                raise BundleError(
                    f"{self.path} {words} {', '.join(sorted(found)) or 'nothing'}",
                    expected=", ".join(sorted(wanted)),
                    fix="Build the plan again",
                )

    def is_input(self, name: str) -> bool:
        """Whether the plan reads the tensor."""
        return bool(self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT)

    def is_on_host(self, name: str) -> bool:
        """Whether the tensor's address is one of the host."""
        return bool(self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST)

    def shape(self, name: str) -> Shape:
        """Return a tensor's shape, -1 where it is free."""
        return tuple(int(extent) for extent in self._engine.get_tensor_shape(name))

    def range_of(self, name: str, profile: int) -> tuple[Shape, Shape]:
        """Return an input's least and largest shape in a profile."""
        least, _, most = self._engine.get_tensor_profile_shape(name, profile)
        return tuple(int(extent) for extent in least), tuple(int(extent) for extent in most)

    def create_context(self) -> Any:
        """Return an execution context whose memory the caller provides."""
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._library.name == "tensorrt_rtx":
            config = self._engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            config.set_runtime_cache(self._runtime_cache(config))
            # Kernels for the shapes in use are made before they are needed: a graph would keep those for any shape.
            specialised = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = specialised
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context(strategy)
        if context is None:
            raise HardwareError(f"TensorRT makes no context for {self.path} ({self.errors})")
        self._cache_grew = True
        return context

    def keep_cache(self) -> None:
        """Write the kernels that were compiled since the last call, where there is a place for them."""
        path = self._cache_path()
        if self._cache is None or path is None or not self._cache_grew:
            return
        self._cache_grew = False
        with publish(path) as file:
            file.write(bytes(self._cache.serialize()))

    def _runtime_cache(self, config: Any) -> Any:
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            path = self._cache_path()
            if path is not None and path.is_file():
                # One of another driver or version is refused and rewritten.
                self._cache.deserialize(path.read_bytes())
        return self._cache

    def _cache_path(self) -> Path | None:
        folder = tensorrt_cache()
        return None if folder is None else folder / f"{self.path.stem}.cache"
