"""The table of engines: from a name to the engine. What was requested is opened, or an error says why not.

Nothing here imports NumPy, so that ``--help`` is printed without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from fllm_export import arguments
from fllm_export.environment import default_engine
from fllm_export.errors import HardwareError, UsageError
from fllm_export.table.codec_names import CODEC_NAMES

if TYPE_CHECKING:
    from fllm_export.engines.base import Engine
    from fllm_export.table.table import Table

DEFAULT = "native"


class NativeOptions(TypedDict, total=False):
    """How the engine ``native`` holds a table and runs its threads; other engines refuse these options.

    Attributes:
        resident: read the rows into memory of the process, on huge pages where the system gives them, rather than map
            the files.
        pin_threads: keep each thread on one CPU.
        batch_window_us: microseconds that a search waits for others to share its pass over the rows.
    """

    resident: bool
    pin_threads: bool
    batch_window_us: int


_CHECKS: dict[str, Callable[..., Any]] = {
    "resident": arguments.flag,
    "pin_threads": arguments.flag,
    "batch_window_us": partial(arguments.integer, least=0, most=(1 << 32) - 1),
}


def checked_options(options: Mapping[str, Any]) -> NativeOptions:
    """Return the options of the engine ``native`` as plain values.

    Raises:
        UsageError: there is no such option, or a value is invalid.
    """
    for name in options:
        if name not in _CHECKS:
            raise UsageError(f"there is no option {name!r}", expected="one of " + ", ".join(_CHECKS))
    return cast(NativeOptions, {name: _CHECKS[name](value, name) for name, value in options.items()})


@dataclass(frozen=True)
class Source:
    """Where an engine finds what it opens.

    Attributes:
        directory: the user table.
        head: the folder ``head`` of a bundle, with the head graph ``tile.onnx`` and ``plans/``; None without a bundle.
        threads: threads inside one call, where the engine can choose.
        native: options that only the engine ``native`` has.
        part: number of the part of the table that is opened, and how many parts there are; None is the whole table.
    """

    directory: Path
    head: Path | None
    threads: int
    native: NativeOptions
    part: tuple[int, int] | None = None

    def table(self) -> Table:
        """Open the rows for an engine written in Python.

        Raises:
            BundleError: the table is missing, damaged or of a newer format.
            UsageError: the part holds no user.
        """
        from fllm_export.table.part import TablePart
        from fllm_export.table.table import Table

        return Table(self.directory, part=None if self.part is None else TablePart(*self.part))

    def absolute(self) -> Source:
        """Return the same source by paths that do not depend on the working directory."""
        return replace(
            self, directory=self.directory.absolute(), head=None if self.head is None else self.head.absolute()
        )


def _core(name: str) -> Callable[[Source], Engine]:
    def make(source: Source) -> Engine:
        from fllm_export.engines.core import CoreEngine

        return CoreEngine(name, source.directory, source.threads, part=source.part, **source.native)

    return make


def _numpy(source: Source) -> Engine:
    from fllm_export.engines.reference import NumpyEngine
    from fllm_export.engines.reopened import ReopenedEngine

    return ReopenedEngine("numpy", lambda: NumpyEngine(source.table()))


def _onnxruntime(source: Source) -> Engine:
    from fllm_export.engines.onnxruntime import OnnxRuntimeEngine
    from fllm_export.engines.reopened import ReopenedEngine

    graph = _head("onnxruntime", source) / "tile.onnx"
    return ReopenedEngine("onnxruntime", lambda: OnnxRuntimeEngine(source.table(), graph, source.threads))


def _tensorrt(source: Source) -> Engine:
    from fllm_export.engines.reopened import ReopenedEngine
    from fllm_export.engines.tensorrt.engine import TensorRtEngine

    plans = _head("tensorrt", source) / "plans"
    return ReopenedEngine("tensorrt", lambda: TensorRtEngine(source.table(), plans))


def _head(name: str, source: Source) -> Path:
    if source.head is None:
        raise HardwareError(
            f"the engine `{name}` needs the head graphs of a bundle, and {source.directory} was opened without one",
            expected="a table inside a bundle",
            fix="Open the bundle with Runtime.open, or pass its folder `head` as head=",
        )
    return source.head


@dataclass(frozen=True)
class EngineEntry:
    """A row of the table of engines.

    Attributes:
        make: opens a table.
        codecs: the codecs that it scans.
        runs: what executes the scan, for people.
        exactness: how its answers compare with the definition, for people.
        refines: whether it ranks candidates again by refinement rows.
    """

    make: Callable[[Source], Engine]
    codecs: tuple[str, ...]
    runs: str
    exactness: str
    refines: bool = True


_BIT_IDENTICAL = "users and scores bit-identical to `numpy`"

ENGINES: dict[str, EngineEntry] = {
    "native": EngineEntry(
        _core("native"),
        CODEC_NAMES,
        "libfllm on CPUs, the default",
        f"int8, fp8, int4, int4row, int2, int1: {_BIT_IDENTICAL}; fp32, fp16: float64 sums in another order",
    ),
    "cuda": EngineEntry(
        _core("cuda"),
        ("int8", "fp8", "int4row", "int2"),
        "libfllm on NVIDIA GPUs; no GPU has run it yet",
        _BIT_IDENTICAL,
        refines=False,
    ),
    "tensorrt": EngineEntry(
        _tensorrt,
        ("int8", "fp8"),
        "the bundle's head plan on an NVIDIA GPU; no GPU has run it yet",
        f"int8: {_BIT_IDENTICAL}, by a proof on the host; fp8: the same by an assumption, never called exact",
        refines=False,
    ),
    "onnxruntime": EngineEntry(
        _onnxruntime,
        CODEC_NAMES,
        "`head/tile.onnx` of the bundle, tile by tile",
        f"int8, int4row, int2, int1: {_BIT_IDENTICAL}; others: float32 sums, never called exact",
    ),
    "numpy": EngineEntry(_numpy, CODEC_NAMES, "one float64 matrix product per tile", "the definition"),
}


def engine_name(requested: str | None) -> str:
    """Return the engine to open: the caller's, or else the environment's, or else the default.

    Raises:
        UsageError: there is no engine of that name.
    """
    if requested is None:
        requested = default_engine() or DEFAULT
    return arguments.one_of(requested, "engine", tuple(ENGINES))


def open_engine(name: str, source: Source) -> Engine:
    """Return an engine with the table of ``source`` open.

    Args:
        name: a name of :data:`ENGINES`.
        source: the table, and what else the engine needs.

    Raises:
        BundleError: the table is missing, damaged or of a newer format.
        HardwareError: the engine cannot run here.
        UsageError: the engine does not scan the table's codec, or does not have an option that was given.
    """
    if source.native and name != "native":
        raise UsageError(
            f"{', '.join(source.native)} given for the engine `{name}`",
            expected="these options only with the engine `native`",
        )
    return ENGINES[name].make(source)
