"""The stages of the GPU tests, and how one is run within its time."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.gpu.compiled import LIBFLLM, ROOT
from benchmarks.gpu.facts import capability

LEAST_SECONDS = 5
"""A stage for which less is left is not begun."""


@dataclass(frozen=True)
class Setting:
    """Where and on what the stages run.

    Attributes:
        out: folder of builds, logs and results.
        scale: times the rows of the tables that are measured.
        emulated: whether the GPU is emulated.
    """

    out: Path
    scale: float
    emulated: bool


@dataclass(frozen=True)
class Outcome:
    """What came of a stage; ``reason`` is empty where it passed."""

    stage: str
    result: Literal["passed", "failed", "hung", "skipped"]
    reason: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON-ready values."""
        return asdict(self)


def ready(_: Setting) -> str | None:
    """Say that nothing keeps a stage from running."""
    return None


@dataclass(frozen=True)
class Stage:
    """A step of the GPU tests.

    Attributes:
        name: of the stage and of its log.
        seconds: it is ended after so long.
        command: what is run, a shell's line.
        lacks: says what is missing here, or None.
    """

    name: str
    seconds: float
    command: Callable[[Setting], str]
    lacks: Callable[[Setting], str | None] = ready


def run(stage: Stage, setting: Setting, ends: float) -> Outcome:
    """Run a stage, its output going to ``STAGE.log``.

    Args:
        stage: what is run. Exit status 6 means that something is missing here: the last line says what.
        setting: where.
        ends: a time of :func:`time.monotonic` by which it is ended in any case.
    """
    began = time.monotonic()
    limit = min(stage.seconds, ends - began)
    missing = stage.lacks(setting) if limit >= LEAST_SECONDS else "no time was left"
    if missing is not None:
        return Outcome(stage.name, "skipped", missing, 0.0)
    log = setting.out / f"{stage.name}.log"
    environment = {**os.environ, "FLLM_CUDA_LIBRARY": str(setting.out / "libfllm_cuda.so"), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-ec", stage.command(setting)],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return Outcome(stage.name, "hung", f"ended after {limit:.0f} s; {log.name}", time.monotonic() - began)
    seconds = time.monotonic() - began
    if status == 0:
        return Outcome(stage.name, "passed", "", seconds)
    lines = log.read_text(errors="replace").strip().splitlines()
    last = lines[-1][:200] if lines else "it printed nothing"
    return Outcome(stage.name, "skipped" if status == 6 else "failed", last, seconds)


def _python(module: str, rest: str) -> str:
    return f"'{sys.executable}' -m {module} {rest}"


def _cases(names: str) -> Callable[[Setting], str]:
    def command(setting: Setting) -> str:
        emulated = " --emulated" if setting.emulated else ""
        where = f"--built '{setting.out}' --json '{setting.out / 'cases.json'}'"
        return _python("benchmarks.gpu", f"{where} --scale {setting.scale}{emulated} --only {names}")

    return command


def _built(*names: str) -> Callable[[Setting], str | None]:
    def lacks(setting: Setting) -> str | None:
        missing = [name for name in names if not (setting.out / name).is_file()]
        return f"the build left no {missing[0]}" if missing else None

    return lacks


def _test(name: str) -> Stage:
    return Stage(name, 60, lambda setting: f"'{setting.out / name}'", _built(name, "libfllm_cuda.so"))


def _sanitized(tool: str, test: str) -> Stage:
    def lacks(setting: Setting) -> str | None:
        if setting.emulated:
            return "the emulated GPU has no compute-sanitizer"
        if shutil.which("compute-sanitizer") is None:
            return "there is no compute-sanitizer"
        return _built(test, "libfllm_cuda.so")(setting)

    command = f"compute-sanitizer --tool {tool} --error-exitcode 1 --print-limit 20"
    return Stage(f"{tool}-{test}", 60, lambda setting: f"{command} '{setting.out / test}'", lacks)


def _json_headers() -> Path | None:
    """Return the folder with nlohmann/json.hpp, or None."""
    packaged = importlib.util.find_spec("nlohmann_json")
    places = [Path("/usr/include"), Path("/usr/local/include")]
    if packaged is not None and packaged.origin:
        places.insert(0, Path(packaged.origin).parent / "include")
    if named := os.environ.get("NLOHMANN_JSON_INCLUDE_DIR"):
        places.insert(0, Path(named))
    return next((place for place in places if (place / "nlohmann" / "json.hpp").is_file()), None)


def _lacks_cmake(_: Setting) -> str | None:
    for tool in ("cmake", "ninja"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    return None if _json_headers() is not None else "there are no headers of nlohmann-json"


def _library(setting: Setting) -> str:
    """Build libfllm and libfllm_cuda as users do, and compare whole searches with the CPU's engine."""
    build, headers = setting.out / "library", _json_headers()
    configure = (
        f"cmake -S '{LIBFLLM}' -B '{build}' -G Ninja -DFLLM_BUILD_TESTS=ON -DNLOHMANN_JSON_INCLUDE_DIR='{headers}'"
    )
    driver = build / "libfllm_cuda_emulated.so"
    targets = "cuda_engine_test"
    if not setting.emulated:
        architecture = capability().replace(".", "")
        architecture += "a" if architecture.startswith("9") else ""
        configure += f" -DFLLM_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES={architecture}"
        driver = build / "libfllm_cuda.so"
        targets += " fllm fllm_cuda"
    return f"{configure}; ninja -C '{build}' {targets}; FLLM_CUDA_LIBRARY='{driver}' '{build / 'cuda_engine_test'}'"


STAGES: tuple[Stage, ...] = (
    Stage(
        "build",
        150,
        lambda setting: _python(
            "benchmarks.gpu.compiled", f"'{setting.out}'" + (" --emulated" if setting.emulated else "")
        ),
    ),
    _test("cuda_kernels_test"),
    _test("cuda_scan_many_test"),
    Stage(
        "cases",
        250,
        _cases("billion wide wide-int2 wide-fp8 streamed torch text"),
        _built("libgpu_engine.so", "libfllm_cuda.so"),
    ),
    _sanitized("memcheck", "cuda_kernels_test"),
    _sanitized("memcheck", "cuda_scan_many_test"),
    _sanitized("racecheck", "cuda_kernels_test"),
    _sanitized("racecheck", "cuda_scan_many_test"),
    Stage("library", 150, _library, _lacks_cmake),
)
"""In order of worth."""
