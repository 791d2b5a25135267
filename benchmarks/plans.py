"""How long TensorRT plans take to build, how large they are, and which type the encoder's products have.

python -m benchmarks.plans BUNDLE [--target sm89] [--calibration items.txt]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from fllm_export.graphs.precision_names import PRECISIONS
from fllm_export.item_texts import ItemTexts
from fllm_export.plans.build import add_plans
from fllm_export.plans.options import PlanOptions


def main() -> None:
    """Build the plans of each precision in a copy of the bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--target", default="sm89")
    parser.add_argument("--calibration", type=Path)
    arguments = parser.parse_args()
    texts = list(ItemTexts.load(arguments.calibration).texts) if arguments.calibration else []
    print(f"{'plan':<44}{'MB':>8}{'s for encoder and head':>26}")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(arguments.bundle, Path(folder) / "bundle"))
        for precision in PRECISIONS if texts else ("fp16", "bf16"):
            began = time.perf_counter()
            plans = add_plans(copy, PlanOptions((arguments.target,), precision, unchecked=True), texts)
            seconds = time.perf_counter() - began
            for plan in plans:
                size = (copy / Path(plan.model).parent / "plans" / plan.file).stat().st_size
                print(f"{plan.file:<44}{size / 1e6:>8.1f}{seconds:>26.1f}")


if __name__ == "__main__":
    main()
