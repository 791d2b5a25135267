"""What TensorRT says while it builds or runs."""

from __future__ import annotations

from typing import Any


def make_log(trt: Any, *, keep_lines: bool) -> Any:
    """Return a logger with its ``errors``, and all ``lines`` where they are kept.

    The base class only exists once TensorRT is imported.

    Args:
        trt: the Python module.
        keep_lines: a builder's log tells of layers; a runtime's has no end.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if keep_lines:
                self.lines.append(message)
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message)

        @property
        def last_errors(self) -> str:
            return "; ".join(self.errors[-3:]) or "it gives no reason"

    return Log()
