"""Results of the GPU tests as the rows of docs/guides/cuda.md.

python3 -m benchmarks.gpu.rows build/gpu/results.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def markdown(results: dict[str, Any]) -> str:
    """Return the device, a table of the cases and one of the stages, as Markdown."""
    about = [str(results[name]) for name in ("device", "driver", "torch", "date") if name in results]
    lines = [", ".join(about) + ":", ""]
    if results.get("cases"):
        lines += ["| case | bar | measured | |", "| --- | --- | --- | --- |"]
        lines += [_case(case) for case in results["cases"]] + [""]
    lines += ["| stage | result | seconds |", "| --- | --- | --- |"]
    for stage in results["stages"]:
        reason = f": {stage['reason']}" if stage["reason"] else ""
        lines.append(f"| `{stage['stage']}` | {stage['result']}{reason} | {stage['seconds']:.0f} |")
    return "\n".join(lines)


def _case(case: dict[str, Any]) -> str:
    verdict = "wrong answer" if not case["exact"] else "met" if case["met"] else "missed"
    note = f" ({case['note']})" if case["note"] else ""
    return f"| {case['case']} | {case['bar']} | {case['value']:.2f} {case['unit']}{note} | {verdict} |"


def main() -> int:
    """Print the rows of a file of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    sys.stdout.write(markdown(json.loads(parser.parse_args().results.read_text())) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
