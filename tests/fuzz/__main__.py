"""Fuzz a reader in Python with atheris, which takes the options and folders that libFuzzer takes.

python tests/fuzz shard -max_total_time=60 build/fuzz/shard
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["fllm_export", "json"]):
    from harnesses import KINDS


def main() -> None:
    """Fuzz until the time is over or something is found."""
    kind = KINDS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, kind)
    atheris.Fuzz()


main()
