"""``tensorrt`` and ``tensorrt_rtx`` on the CPU, as far as the builder and the engine use them.

A plan is the ONNX graph with its profiles; ONNX Runtime runs it when the emulated stream comes to it. Scores are off by
what the real thing may be off by, so that an answer which takes them for exact is wrong.
"""

from __future__ import annotations

import enum
import json
import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from .emulated_cuda import EmulatedCuda

VERSION = "11.4.0.106"
_ELEMENTS = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.INT64: 8, onnx.TensorProto.INT8: 1}
_FP8 = onnx.TensorProto.FLOAT8E4M3FN
_ARCHITECTURES = {"SM89": 8, "SM120": 16}


class Mode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class Location(enum.Enum):
    DEVICE = 0
    HOST = 1


class Logger:
    ERROR = 1

    def __init__(self) -> None:
        pass

    def log(self, severity: int, message: str) -> None: ...


class Monitor:
    def __init__(self) -> None:
        pass


class Builder:
    def __init__(self, module: EmulatedTensorRt, log: Any) -> None:
        self._module = module

    def create_network(self, flags: int) -> SimpleNamespace:
        return SimpleNamespace(model=None, num_inputs=0, get_input=None)

    def create_builder_config(self) -> Any:
        return BuilderConfig()

    def create_optimization_profile(self) -> Any:
        shapes: dict[str, Any] = {}
        return SimpleNamespace(
            shapes=shapes, set_shape=lambda name, *three: shapes.__setitem__(name, [list(shape) for shape in three])
        )

    def build_serialized_network(self, network: Any, config: Any) -> bytes:
        config.progress_monitor.phase_start("build", None, 2)
        for step in range(2):
            config.progress_monitor.step_complete("build", step)
        config.progress_monitor.phase_finish("build")
        head = json.dumps([profile.shapes for profile in config.profiles]).encode()
        body = struct.pack("<I", len(head)) + head + network.model.SerializeToString()
        return self._module.header(config, len(body)) + body


class BuilderConfig:
    def __init__(self) -> None:
        self.profiles: list[Any] = []
        self.capability = 0
        self.times = b""

    def create_timing_cache(self, known: bytes) -> Any:
        return SimpleNamespace(serialize=lambda: known + b".")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> None:
        self.times = cache.serialize()

    def set_compute_capability(self, capability: int, place: int) -> None:
        self.capability = capability

    def add_optimization_profile(self, profile: Any) -> None:
        self.profiles.append(profile)


class Parser:
    num_errors = 0

    def __init__(self, network: Any, log: Any) -> None:
        self._network = network

    def parse_from_file(self, path: str) -> bool:
        model = onnx.load(path)
        self._network.model = model
        self._network.num_inputs = len(model.graph.input)
        self._network.get_input = lambda i: SimpleNamespace(
            name=model.graph.input[i].name, shape=_shape(model.graph.input[i])
        )
        return True


class Runtime:
    def __init__(self, module: EmulatedTensorRt, log: Any) -> None:
        self._module, self._log = module, log

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        try:
            return Engine(self._module, self._log, plan[self._module.header_size :])
        except Exception as error:
            self._log.log(Logger.ERROR, f"no plan: {error!r}")
            return None


class Engine:
    def __init__(self, module: EmulatedTensorRt, log: Any, plan: bytes) -> None:
        (size,) = struct.unpack_from("<I", plan)
        self.module, self.log = module, log
        self._profiles = json.loads(plan[4 : 4 + size])
        model = onnx.load_from_string(plan[4 + size :])
        self.inputs = {value.name: value for value in model.graph.input}
        self.outputs = {value.name: value for value in model.graph.output}
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._names = [*self.inputs, *self.outputs]

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def get_tensor_name(self, number: int) -> str:
        return self._names[number]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name in self.inputs else Mode.OUTPUT

    def get_tensor_location(self, name: str) -> Location:
        return Location.HOST if name in self.module.on_host else Location.DEVICE

    def get_tensor_shape(self, name: str) -> list[int]:
        return _shape((self.inputs | self.outputs)[name])

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return self._profiles[profile][name]

    def create_runtime_config(self) -> Any:
        assert self.module.rtx
        return RuntimeConfig(self.module)

    def create_execution_context(self, how: Any) -> Any:
        assert (how.strategy if self.module.rtx else how) == "USER_MANAGED"
        assert not self.module.rtx or how.dynamic_shapes_kernel_specialization_strategy == "EAGER"
        return Context(self)


class RuntimeConfig:
    def __init__(self, module: EmulatedTensorRt) -> None:
        self._module = module
        self.strategy = ""

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"kernels", deserialize=self._module.caches_read.append)

    def set_runtime_cache(self, cache: Any) -> None:
        pass


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._cuda = engine, engine.module.cuda
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._profile: int | None = None
        self._settled = False
        self._scratch = (0, 0)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile = profile
        return 0 <= profile < self._engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if -1 in self._engine.get_tensor_shape(name):
            least, _, most = self._engine.get_tensor_profile_shape(name, self._profile or 0)
            if not all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True)):
                self._engine.log.log(Logger.ERROR, f"{name} {shape} is outside of the profile")
                return False
        self._settled &= self._shapes.get(name) == tuple(shape)
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return 4 * sum(int(np.prod(shape)) for shape in self._shapes.values())

    def set_device_memory(self, address: int, size: int) -> None:
        self._scratch = (address, size)

    def execute_async_v3(self, handle: int) -> bool:
        stream = self._cuda.streams[handle]
        names = {*self._engine.inputs, *self._engine.outputs}
        ready = (
            self._profile is not None
            and names == set(self._addresses)
            and set(self._engine.inputs) == set(self._shapes)
        )
        if self._profile is None or not ready or self._scratch[1] < self.update_device_memory_size_for_shapes():
            self._engine.log.log(Logger.ERROR, "something was not set")
            return False
        if stream.captured is not None and not self._settled:
            self._engine.log.log(Logger.ERROR, "shapes changed and a capture has begun")
            return False
        self._settled = True
        shapes, addresses, scratch = dict(self._shapes), dict(self._addresses), self._scratch
        stream.put(lambda: self._run(shapes, addresses, scratch))
        return True

    def _run(self, shapes: dict[str, Any], addresses: dict[str, int], scratch: tuple[int, int]) -> None:
        self._engine.module.runs += 1
        self._cuda.view(*scratch)[:] = 0x5A
        feed = {}
        for name, value in self._engine.inputs.items():
            element = value.type.tensor_type.elem_type
            size = int(np.prod(shapes[name])) * _ELEMENTS.get(element, 1)
            assert self._cuda.is_on_gpu(addresses[name]) == (name not in self._engine.module.on_host)
            stored = self._cuda.view(addresses[name], size).copy()
            feed[name] = _value(name, stored, element, shapes[name])
        names = list(self._engine.outputs)
        for name, result in zip(names, self._engine.session.run_with_ort_values(names, feed), strict=True):
            array = np.ascontiguousarray(result.numpy())
            self._cuda.view(addresses[name], array.nbytes)[:] = array.reshape(-1).view(np.uint8)


class EmulatedTensorRt:
    """The module; ``rtx`` makes it TensorRT-RTX."""

    ILogger = Logger
    IProgressMonitor = Monitor
    OnnxParser = Parser
    TensorIOMode = Mode
    TensorLocation = Location
    ProfilingVerbosity = SimpleNamespace(DETAILED=1)
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="USER_MANAGED")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="EAGER")
    ComputeCapability = SimpleNamespace(**_ARCHITECTURES)

    def __init__(self, cuda: EmulatedCuda, *, rtx: bool = False, on_host: tuple[str, ...] = ()) -> None:
        self.cuda, self.rtx, self.on_host = cuda, rtx, on_host
        self.__version__ = "1.7.1.116" if rtx else VERSION
        self.header_size = 36 if rtx else 0
        self.runs = 0
        self.caches_read: list[bytes] = []

    def Builder(self, log: Any) -> Builder:
        return Builder(self, log)

    def Runtime(self, log: Any) -> Runtime:
        return Runtime(self, log)

    def header(self, config: BuilderConfig, size: int) -> bytes:
        """Return the bytes that a plan of TensorRT-RTX begins with; the full library's begin with something else."""
        if not self.rtx:
            return b""
        numbers = [int(part) for part in self.__version__.split(".")]
        return struct.pack("<4s12xQ4B4sI", b"vtrt", 36 + size, *numbers, b"vtrt", config.capability)


def _shape(value: Any) -> list[int]:
    return [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]


def _value(name: str, stored: Any, element: int, shape: tuple[int, ...]) -> Any:
    if element == _FP8:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(stored.reshape(shape), _FP8)
    array = stored.view(onnx.helper.tensor_dtype_to_np_dtype(element)).reshape(shape)
    if name == "scales":
        # Each row's score a little off, as roundings may leave it.
        array = array * (1 + 2.0**-22 * np.random.default_rng(len(array)).uniform(-1, 1, len(array))).astype(np.float32)
    return ort.OrtValue.ortvalue_from_numpy(array)
