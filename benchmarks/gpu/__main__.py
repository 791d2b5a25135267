"""The engine ``cuda`` beside a GPU's own ceilings and beside torch, every answer checked against the definition.

    python3 -m benchmarks.gpu [--scale 1.0] [--only CASE ...] [--json results.json]

Needs Python, torch with CUDA, nvcc and a C++ compiler; nothing of fllm-export has to be installed, and nothing is
downloaded. The case ``plans`` needs TensorRT too, and says what is missing where it cannot run. Times are wall clock
around the whole call, host included; ceilings are by CUDA events. ``--scale`` shrinks every table for smaller GPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.gpu.cases import CASES, Bench
from benchmarks.gpu.compiled import compile_driver, compile_engine
from benchmarks.gpu.device import Device
from benchmarks.gpu.facts import facts


def main() -> int:
    """Run the cases; exit 6 without a GPU, 3 when an answer is not as defined."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--json", type=Path, help="where results go, rewritten after each case")
    parser.add_argument("--built", type=Path, help="folder that benchmarks.gpu.compiled has filled")
    parser.add_argument("--emulated", action="store_true", help="on the emulated GPU, whose times say nothing")
    arguments = parser.parse_args()
    if not arguments.emulated and not torch.cuda.is_available():
        print("there is no GPU that torch can use: nothing was measured", file=sys.stderr)
        return 6
    with tempfile.TemporaryDirectory() as folder:
        built = arguments.built or Path(folder)
        if arguments.built is None:
            compile_driver(built, emulated=arguments.emulated)
            compile_engine(built)
        os.environ["FLLM_CUDA_LIBRARY"] = str(built / "libfllm_cuda.so")
        bench = Bench(Device(emulated=arguments.emulated), built / "libgpu_engine.so", arguments.scale)
        about = {**facts(emulated=arguments.emulated), "torch": torch.__version__}
        print(", ".join(about.values()))
        print(", ".join(f"{name} {value:.1f}" for name, value in bench.ceilings.items()))
        for name in arguments.only:
            bench.device.empty_cache()
            CASES[name](bench)
            if arguments.json:
                results = {**about, "scale": arguments.scale, "ceilings": bench.ceilings, "cases": bench.lines}
                arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(line["exact"] for line in bench.lines) else 3


if __name__ == "__main__":
    sys.exit(main())
