"""What swaps and soaks serve: a link that leads to one of two sources, and the program that serves it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fllm_export import UserTable

GENERATIONS = 1_000_000
"""Between those of the one source and those of the other, so that a generation tells them apart."""


class Places:
    """Two sources whose tables differ, and a link to one of them.

    Args:
        folder: where they are made.
        users: rows of each table.
        dim: of its rows; that of the bundle where there is one.
        bundle: copied for each source, with other users; None: the sources are tables.
    """

    def __init__(self, folder: Path, users: int, dim: int, bundle: Path | None) -> None:
        self.link = folder / "current"
        self.sources = (folder / "one", folder / "two")
        self.tables = []
        for number, source in enumerate(self.sources, 1):
            if bundle is not None:
                shutil.copytree(bundle, source)
                shutil.rmtree(source / "users")
            table = source if bundle is None else source / "users"
            rows = np.random.default_rng(number).standard_normal((users, dim)).astype(np.float32)
            UserTable.create(table, rows, quant="int8", generation=number * GENERATIONS)
            self.tables.append(table)
        self.turn(0)

    def turn(self, number: int) -> None:
        """Let the link lead to the one or the other."""
        fresh = self.link.with_name("fresh")
        fresh.symlink_to(self.sources[number % 2])
        fresh.replace(self.link)


class Served:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def reload(self) -> None:
        """Move to what the link leads to now."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/reload", method="POST")
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.status == 200

    def processor_s(self) -> float:
        """Return the processor time that the process has taken, all threads together."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Return the memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(source: Path, threads: int, cpp: Path | None, *further: str) -> Iterator[Served]:
    """Run a server; it must end with 0."""
    if cpp is None:
        command = [sys.executable, "-m", "fllm_export.cli", "serve", str(source)]
    else:
        command = [str(cpp), "--bundle", str(source)]
    command += ["--port", "0", "--threads", str(threads), *further]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    port, said = 0, []
    try:
        for line in process.stderr:
            said.append(line)
            if "listening on" in line:
                port = int(re.findall(r":(\d+)", line)[-1])
            if "ready" in line:
                break
        else:
            raise SystemExit("the server is not ready: " + "".join(said))
        yield Served(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code == 0, code
