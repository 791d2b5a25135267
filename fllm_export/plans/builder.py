"""From an ONNX graph to a plan, by TensorRT 11 or TensorRT-RTX: strongly typed, one architecture a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fllm_export.engines.tensorrt.library import Library
from fllm_export.engines.tensorrt.log import make_log
from fllm_export.errors import BundleError, HardwareError
from fllm_export.plans.layers import Layer, read_layers
from fllm_export.progress import Progress, silent

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""The least, the usual and the largest shape of each input of free size; TensorRT tunes for the usual one."""


@dataclass(frozen=True)
class Built:
    """What a build gives.

    Attributes:
        plan: the serialised engine.
        layers: its layers as the log lists them; may be none.
        timing_cache: the measured times of kernels, for faster builds on the same GPU; empty where the library has
            no use for one.
    """

    plan: bytes
    layers: list[Layer]
    timing_cache: bytes


def build_plan(
    library: Library,
    model: Path,
    profiles: Sequence[Profile],
    architecture: str,
    *,
    timing_cache: bytes = b"",
    tf32: bool = True,
    progress: Progress = silent,
) -> Built:
    """Build a plan.

    Args:
        library: what builds.
        model: the ONNX file; weights beside it are found.
        profiles: ranges of input shapes, one optimisation profile each.
        architecture: the GPU, such as ``sm89``; one of ``library.targets``.
        timing_cache: what an earlier build on this GPU returned.
        tf32: whether float32 matrix products may be computed in TF32, which is TensorRT's default.
        progress: told of the builder's phases.

    Raises:
        BundleError: TensorRT does not parse the model.
        HardwareError: it cannot build the plan; the message carries its last errors.
    """
    trt = library.module
    log = make_log(trt, keep_lines=True)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(model)):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BundleError(f"{library.name} {library.version} cannot parse {model} ({reasons})")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    # Kept in a variable: the builder does not own it.
    monitor = _monitor(trt, f"plan of {model.stem} for {architecture}", progress)
    config.progress_monitor = monitor
    cache = _aim(library, config, architecture, timing_cache)
    for profile in profiles:
        config.add_optimization_profile(_profile(builder, network, profile))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise HardwareError(
            f"{library.name} {library.version} cannot build {model.name} for {architecture} ({log.last_errors})"
        )
    kept = b"" if cache is None else bytes(cache.serialize())
    return Built(bytes(plan), read_layers(log.lines), kept)


def _aim(library: Library, config: Any, architecture: str, timing_cache: bytes) -> Any:
    """Choose the GPU, and return the timing cache in use.

    TensorRT-RTX must not be given one: it would ask for a GPU. It has its kernels compiled on the target instead.
    """
    if library.builds_ahead:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(library.module.ComputeCapability, architecture.upper()), 0)
        return None
    cache = config.create_timing_cache(timing_cache)
    config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _profile(builder: Any, network: Any, ranges: Profile) -> Any:
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        if -1 in tuple(tensor.shape):
            profile.set_shape(tensor.name, *ranges[tensor.name])
    return profile


def _monitor(trt: Any, stage: str, progress: Progress) -> Any:
    """Return a monitor that reports the steps of the outermost phase."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.outermost, self.steps = "", 1

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self.outermost, self.steps = name, steps
                progress(stage, 0, steps)

        def step_complete(self, name: str, step: int) -> bool:
            if name == self.outermost and step + 1 < self.steps:
                progress(stage, step + 1, self.steps)
            return True

        def phase_finish(self, name: str) -> None:
            if name == self.outermost:
                progress(stage, self.steps, self.steps)

    return Monitor()
