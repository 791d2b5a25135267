"""Run the command line as ``python -m fllm_export.cli``."""

from __future__ import annotations

from fllm_export.cli.main import main

main(prog_name="fllm-export")
