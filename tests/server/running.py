"""A server as a process that a test started."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any


class Running:
    """A server on a port of 127.0.0.1, and the lines that it has written to stderr."""

    end_seconds = 60
    """After a signal the server must have ended within this time."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], stdout: int | None = None) -> None:
        self.process = subprocess.Popen(
            command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=dict(environment)
        )
        assert self.process.stderr is not None
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        self.port = int(self.wait_for("listening on").rsplit(":", 1)[1])

    def _read(self, stream: Any) -> None:
        for line in stream:
            self.lines.append(line)

    def wait_for(self, text: str, seconds: float = 60) -> str:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in list(self.lines):
                if text in line:
                    return line
            if self.process.poll() is not None:
                self._reader.join(5)
                if not any(text in line for line in self.lines):
                    raise AssertionError(f"the server ended: {self.lines}")
            time.sleep(0.01)
        raise AssertionError(f"no {text!r} in {self.lines}")

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        self.process.send_signal(with_signal)
        return self.process.wait(self.end_seconds)
