"""The example server as a running program."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest


class Server:
    """A running server on a port of 127.0.0.1."""

    def __init__(self, program: Path, bundle: Path, onnxruntime: str, *options: str) -> None:
        command = [str(program), "--bundle", str(bundle), "--port", "0", "--threads", "1", *options]
        environment = {**os.environ, "FLLM_ONNXRUNTIME": onnxruntime}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
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

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def ask(self, **document: Any) -> dict[str, Any]:
        status, text = self.request("POST", "/v1/topk", json.dumps(document).encode())
        assert status == 200, text
        return json.loads(text)

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        self.process.send_signal(with_signal)
        return self.process.wait(30)


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found["generation"] == wanted["generation"]
    assert len(found["items"]) == len(wanted["items"])
    for ours, theirs in zip(found["items"], wanted["items"], strict=True):
        assert ours.keys() == theirs.keys()
        assert [user["user_id"] for user in ours["users"]] == [user["user_id"] for user in theirs["users"]]
        for field in ("score", "log_prob"):
            np.testing.assert_allclose(
                [user[field] for user in ours["users"]], [user[field] for user in theirs["users"]], rtol=1e-4, atol=1e-5
            )
        assert ours["logsumexp"] == pytest.approx(theirs["logsumexp"], rel=1e-5)
        assert (ours["coverage"], ours["complete"]) == (theirs["coverage"], theirs["complete"])
