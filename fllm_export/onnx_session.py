"""ONNX Runtime sessions, on the CPU or on a GPU."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fllm_export.environment import silence_onnxruntime
from fllm_export.errors import BudgetError, BundleError, HardwareError
from fllm_export.system_errors import limit_error

_CUDA = "CUDAExecutionProvider"


class OnnxSession:
    """An open ONNX model. Safe to use from many threads at once, and in the children of a fork.

    A child has none of the threads that its parent's session counts on. So it opens the model again at the first
    call, and never lets go of the parent's session, whose end would wait for those threads.

    Args:
        open_model: opens the model and returns ONNX Runtime's session.
    """

    def __init__(self, open_model: Callable[[], Any]) -> None:
        self._open_model = open_model
        self._session = open_model()
        self._process = os.getpid()
        _sessions.add(self)

    def run(self, outputs: Sequence[str], feed: Mapping[str, Any], options: Any = None) -> list[Any]:
        """Return the outputs of these names, for inputs by name; ``options`` are ONNX Runtime's of one run."""
        result: list[Any] = self._here().run(outputs, feed, options)
        return result

    @property
    def metadata(self) -> dict[str, str]:
        """What the model says of itself, by name."""
        return dict(self._here().get_modelmeta().custom_metadata_map)

    def keep_for_ever(self) -> None:
        """Add an owner that never goes away to ONNX Runtime's session."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))

    def _here(self) -> Any:
        if self._process != os.getpid():
            self._session = self._open_model()
            self._process = os.getpid()
        return self._session


_sessions: weakref.WeakSet[OnnxSession] = weakref.WeakSet()


def _keep_inherited_sessions() -> None:
    for session in _sessions:
        session.keep_for_ever()


os.register_at_fork(after_in_child=_keep_inherited_sessions)


def cpu_session(model: Path, threads: int) -> OnnxSession:
    """Open an ONNX model on the CPU with that many threads inside one call, and telemetry off.

    Raises:
        BundleError: ONNX Runtime cannot read the model.
        BudgetError: the system refuses the memory or the threads.
    """
    return OnnxSession(lambda: _open(model, "CPUExecutionProvider", threads))


def cuda_session(model: Path) -> OnnxSession:
    """Open an ONNX model on the first GPU, and telemetry off.

    Raises:
        BundleError: ONNX Runtime cannot read the model.
        HardwareError: this ONNX Runtime knows no GPUs, or its CUDA provider does not start; no CPU is taken instead.
    """
    process = os.getpid()

    def open_model() -> Any:
        if process != os.getpid():
            raise HardwareError(
                "the process was forked after its parent had used a GPU, and CUDA does not work in such a child",
                expected="no use of a GPU before the fork",
                fix="Fork before the first use of a GPU, or start processes by spawn",
            )
        return _open_on_gpu(model)

    return OnnxSession(open_model)


def _open_on_gpu(model: Path) -> Any:
    silence_onnxruntime()
    import onnxruntime

    if _CUDA not in onnxruntime.get_available_providers():
        raise HardwareError(
            f"this ONNX Runtime has no {_CUDA}",
            expected="the build for GPUs",
            fix="Run pip uninstall onnxruntime, then pip install 'fllm-export[gpu]'",
        )
    session = _open(model, _CUDA, 1)
    if _CUDA not in session.get_providers():
        raise HardwareError(
            f"ONNX Runtime's {_CUDA} does not start",
            expected="a GPU, its driver, CUDA and cuDNN of the versions that this ONNX Runtime is built for",
            fix="Read what ONNX Runtime wrote to stderr",
        )
    session.disable_fallback()
    return session


def _open(model: Path, provider: str, threads: int) -> Any:
    silence_onnxruntime()
    import onnxruntime

    _require_threads(threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=[provider])
    except Exception as error:  # onnxruntime's own exceptions share no narrower base
        damaged = BundleError(f"ONNX Runtime cannot open {model} ({error})", fix="Build the bundle again")
        raise limit_error(error, model) or damaged from error


def _require_threads(count: int) -> None:
    """Start as many threads as ONNX Runtime will, which waits for ever for one that cannot start.

    Raises:
        BudgetError: the system refuses one.
    """
    done = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(count - 1):
            thread = threading.Thread(target=done.wait)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise BudgetError(
            f"thread {len(started) + 2} of {count} cannot be started",
            expected="all of them",
            fix="Use fewer threads (FLLM_NUM_THREADS), or raise the limits of processes and memory (ulimit -u, -v)",
        ) from error
    finally:
        done.set()
        for thread in started:
            thread.join()
