"""Everything that a machine with an NVIDIA GPU can prove, in order of worth and within a time.

    python3 -m benchmarks.gpu.suite --out build/gpu [--seconds 540] [--only STAGE ...] [--emulated]

Needs nvcc, a C++ compiler, and torch with CUDA; the last stage also CMake, ninja and the headers of nlohmann-json
(``NLOHMANN_JSON_INCLUDE_DIR`` names their folder). Nothing is downloaded. Each stage has a time limit of its own, so
that one that hangs does not cost the others. ``results.json`` is rewritten after each stage, each stage's output is
in ``STAGE.log``, and the rows for docs/guides/cuda.md are printed at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.facts import facts, has_gpu
from benchmarks.gpu.rows import markdown
from benchmarks.gpu.stages import STAGES, Outcome, Setting, run


def results(folder: Path, setting: Setting, outcomes: list[Outcome]) -> dict[str, Any]:
    """Return what is known so far: facts, stages, and the cases that were measured."""
    cases = folder / "cases.json"
    measured = json.loads(cases.read_text()) if cases.is_file() else {}
    return {**facts(emulated=setting.emulated), **measured, "stages": [outcome.to_dict() for outcome in outcomes]}


def main() -> int:
    """Run the stages; exit 3 where one fails or hangs, 6 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder of builds, logs and results")
    parser.add_argument("--seconds", type=float, default=540, help="time for all stages together")
    parser.add_argument("--scale", type=float, default=1.0, help="times the rows of the tables that are measured")
    parser.add_argument("--only", nargs="+", choices=[stage.name for stage in STAGES], help="stages, else all")
    parser.add_argument("--emulated", action="store_true", help="dry run on the emulated GPU, with small tables")
    arguments = parser.parse_args()
    if not arguments.emulated and not has_gpu():
        print("nvidia-smi lists no GPU: nothing was tested", file=sys.stderr)
        return 6
    setting = Setting(arguments.out.resolve(), 5e-6 if arguments.emulated else arguments.scale, arguments.emulated)
    setting.out.mkdir(parents=True, exist_ok=True)
    (setting.out / "cases.json").unlink(missing_ok=True)
    ends = time.monotonic() + arguments.seconds
    outcomes: list[Outcome] = []
    for stage in STAGES:
        if arguments.only is None or stage.name in arguments.only:
            outcome = run(stage, setting, ends)
            print(f"{outcome.stage:<32}{outcome.result:<10}{outcome.seconds:>7.1f} s  {outcome.reason}", flush=True)
            outcomes.append(outcome)
            text = json.dumps(results(setting.out, setting, outcomes), indent=1)
            (setting.out / "results.json").write_text(text + "\n")
    print("\n" + markdown(results(setting.out, setting, outcomes)))
    return 3 if any(outcome.result in ("failed", "hung") for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
