"""``fllm-export info``: what this machine offers, and what fllm-export would use of it."""

from __future__ import annotations

import os

import click

from fllm_export.cli.output import Output, json_option, pass_output
from fllm_export.counted import counted

_PACKAGES = (
    "numpy",
    "onnxruntime",
    "tokenizers",
    "safetensors",
    "onnx",
    "torch",
    "transformers",
    "peft",
    "optimum-onnx",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-bindings",
)


@click.command()
@json_option
@pass_output
def info(output: Output) -> None:
    """Print versions, the engines that can run here, instruction sets and environment variables."""
    from fllm_export import __version__
    from fllm_export.compiled import _core
    from fllm_export.engines.probe import obstacles
    from fllm_export.environment import VARIABLES, default_threads
    from fllm_export.extras import package_version
    from fllm_export.table.codec_names import CODEC_NAMES

    engines = obstacles()
    packages = {name: package_version(name) for name in _PACKAGES}
    facts = {
        "fllm-export": __version__,
        "engines": {name: {"runs": why is None, "why_not": why} for name, why in engines.items()},
        "codecs": list(CODEC_NAMES),
        "threads": default_threads(),
        "cpu_levels": _core.cpu_levels(),
        "packages": packages,
        "environment": {name: os.environ.get(name) for name in VARIABLES},
    }
    wide = max(map(len, [*packages, *VARIABLES]))
    lines = [
        f"fllm-export {__version__}",
        f"codecs      {', '.join(CODEC_NAMES)}",
        f"processor   {', '.join(_core.cpu_levels())}; {counted(default_threads(), 'thread')}",
        "",
        *(
            f"engine {name:<{wide - 7}}  {'runs' if why is None else 'not available here: ' + why}"
            for name, why in engines.items()
        ),
        "",
        *(f"{name:<{wide}}  {number or 'not installed'}" for name, number in packages.items()),
        "",
        *(f"{name:<{wide}}  {os.environ.get(name) or '-':<12} {use}" for name, use in VARIABLES.items()),
    ]
    output.result(facts, "\n".join(lines))
