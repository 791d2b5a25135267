"""The end of a server: what was sent before its listening socket closed is answered."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .running import Running
from .serving import CLIENTS, Program, Senders, body, vectors


def end_under_load(users: Path, *, keep: bool, pause_s: float = 0.4) -> Senders:
    program = Program(users)
    program.wait_for("ready")
    senders = Senders(program.port, [body(vectors(2, i), k=5) for i in range(CLIENTS)], items=2, keep=keep)
    senders.start()
    time.sleep(pause_s)
    senders.listening = False  # what is sent from here on may be too late
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(60) == 0
    senders.join()
    return senders


@pytest.mark.parametrize("keep", [True, False], ids=["kept connections", "new connections"])
def test_every_request_is_answered(users: Path, keep: bool) -> None:
    senders = end_under_load(users, keep=keep)
    assert senders.lost == []
    assert senders.answered > CLIENTS


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False], ids=["kept connections", "new connections"])
def test_twenty_ends(users: Path, keep: bool) -> None:
    for number in range(20):
        assert end_under_load(users, keep=keep, pause_s=0.2 + 0.01 * number).lost == []


def test_connections_that_the_system_alone_accepted_are_answered(users: Path) -> None:
    program = Program(users, "--max-wait-ms", "300")
    program.wait_for("ready")
    request = body(vectors(1), k=3)
    head = b"POST /v1/topk HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(request)
    program.process.send_signal(signal.SIGSTOP)
    made = [socket.create_connection(("127.0.0.1", program.port), timeout=30) for _ in range(CLIENTS)]
    for connection in made:
        connection.sendall(head + request)
    program.process.send_signal(signal.SIGTERM)
    program.process.send_signal(signal.SIGCONT)
    for connection in made:
        answer = b""
        while part := connection.recv(65536):
            answer += part
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        connection.close()
    assert program.process.wait(30) == 0


def test_a_body_under_way_is_waited_for(users: Path) -> None:
    program = Program(users)
    program.wait_for("ready")
    request = body(vectors(1), k=3)
    with socket.create_connection(("127.0.0.1", program.port), timeout=30) as connection:
        connection.sendall(b"POST /v1/topk HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(request))
        time.sleep(0.3)
        program.process.send_signal(signal.SIGTERM)
        time.sleep(0.8)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", program.port), timeout=5)
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200")
    assert program.process.wait(30) == 0


SLOW = """
import sys, time
from fllm_export.cli.main import main
from fllm_export.server.served import Served

def slow_check(self, check=Served.check):
    print("loading begins", file=sys.stderr, flush=True)
    time.sleep(2)
    check(self)

Served.check = slow_check
main(sys.argv[1:])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_source_loads_is_no_failure(users: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", SLOW, "serve", str(users), "--port", "0", "--threads", "1"]
    program = Running(command, os.environ, subprocess.DEVNULL)
    program.wait_for("loading begins")
    assert program.stop(number) == 0
    assert not [line for line in program.lines if "Traceback" in line or "Error" in line]


def started(*arguments: str) -> Any:
    command = [sys.executable, "-m", "fllm_export.cli", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_server_that_cannot_start_says_why(users: Path, tmp_path: Path) -> None:
    done = started(str(tmp_path), "--port", "0")
    assert done.returncode == 4
    assert "is not a bundle or a user table" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = started(str(users), "--port", str(port), "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["kind"] == "UsageError"
    done = started(str(users), "--port", "0", "--encoder", "cpu")
    assert (done.returncode, "listening" in done.stderr) == (2, False)
    assert "an encoder was given" in done.stderr
    done = started(str(users), "--port", "0", "--max-batch", "0")
    assert done.returncode == 2
    assert "max_batch is 0" in done.stderr


def test_an_encoder_of_the_environment_is_for_bundles_and_does_not_hinder_a_table(users: Path) -> None:
    program = Program(users, FLLM_ENCODER="cpu")
    program.wait_for("ready")
    assert program.stop() == 0


def test_without_its_packages_the_verb_names_the_extra(users: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from fllm_export.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "serve", str(users)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 6
    assert "uvicorn" in done.stderr
    assert "pip install 'fllm-export[server]'" in done.stderr
