"""The example server as a running program."""

from __future__ import annotations

import http.client
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..server.running import Running


class Server(Running):
    """The example server as a program."""

    end_seconds = 30

    def __init__(self, program: Path, bundle: Path, onnxruntime: str, *options: str) -> None:
        command = [str(program), "--bundle", str(bundle), "--port", "0", "--threads", "1", *options]
        environment = {**os.environ, "FLLM_ONNXRUNTIME": onnxruntime}
        super().__init__(command, environment)

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
