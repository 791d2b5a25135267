"""Running the commands of an example: each is printed before it runs, and the example ends where one fails."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path


def run(*arguments: str | Path) -> None:
    """Print an fllm-export command and run it."""
    print(f"\n$ {shlex.join(['fllm-export', *map(str, arguments)])}", flush=True)
    call("-m", "fllm_export.cli", *arguments)


def call(*arguments: str | Path) -> None:
    """Run this Python with some arguments, and end the example with its exit code where it fails."""
    done = subprocess.run([sys.executable, *map(str, arguments)], check=False)
    if done.returncode:
        sys.exit(done.returncode)
