"""`make test-gpu`, dry on the emulated GPU: its stages, their time limits, what it writes and prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from benchmarks.gpu.rows import markdown
from benchmarks.gpu.stages import STAGES, Setting, Stage, run

ROOT = Path(__file__).parents[2]
CASES = 18


def test_a_dry_run_builds_checks_and_measures(gpu_suite: SimpleNamespace) -> None:
    assert gpu_suite.status == 0, gpu_suite.text
    results = json.loads((gpu_suite.out / "results.json").read_text())
    assert {stage["stage"]: (stage["result"], stage["reason"]) for stage in results["stages"]} == {
        "build": ("passed", ""),
        "cuda_kernels_test": ("passed", ""),
        "cuda_scan_many_test": ("passed", ""),
        "cases": ("passed", ""),
        "memcheck-cuda_kernels_test": ("skipped", "the emulated GPU has no compute-sanitizer"),
    }
    assert results["device"] == "an emulated GPU"
    assert len(results["cases"]) == CASES
    assert all(case["exact"] for case in results["cases"])
    printed = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.rows", gpu_suite.out / "results.json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout
    assert printed.strip() in gpu_suite.text
    assert printed.count("\n| ") == 2 * 2 + CASES + 5


def setting(folder: Path) -> Setting:
    return Setting(folder, 1.0, emulated=True)


def ended(process: int, within_s: float) -> bool:
    """Whether a killed process is gone or a zombie soon; on a busy machine it ends some time after the signal."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_stage_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    stage = Stage("slow", 5, lambda _: "sleep 60 & echo $! > pid; sleep 60")
    (tmp_path / "pid").touch()
    outcome = run(Stage("slow", 5, lambda s: f"cd '{s.out}'; " + stage.command(s)), setting(tmp_path), began + 5.5)
    assert (outcome.result, outcome.reason) == ("hung", "ended after 5 s; slow.log")
    assert time.monotonic() - began < 30
    child = int((tmp_path / "pid").read_text())
    assert ended(child, within_s=10)


@pytest.mark.parametrize(
    ("command", "result", "reason"),
    [
        ("true", "passed", ""),
        ("echo why; exit 1", "failed", "why"),
        ("false; true", "failed", "it printed nothing"),
        ("echo no GPU; exit 6", "skipped", "no GPU"),
    ],
)
def test_what_comes_of_a_stage(tmp_path: Path, command: str, result: str, reason: str) -> None:
    outcome = run(Stage("one", 30, lambda _: command), setting(tmp_path), time.monotonic() + 60)
    assert (outcome.result, outcome.reason) == (result, reason)


def test_a_stage_is_not_begun_without_time_or_what_it_needs(tmp_path: Path) -> None:
    stage = Stage("one", 30, lambda _: "true", lambda _: "there is no hammer")
    assert run(stage, setting(tmp_path), time.monotonic() + 60).reason == "there is no hammer"
    assert run(stage, setting(tmp_path), time.monotonic() + 1).reason == "no time was left"
    sanitizer = next(stage for stage in STAGES if stage.name.startswith("racecheck"))
    assert run(sanitizer, Setting(tmp_path, 1.0, emulated=False), time.monotonic() + 60).result == "skipped"


def test_a_wrong_answer_and_a_failed_stage_show_in_the_rows() -> None:
    case = {"case": "one", "value": 1.5, "unit": "ms", "bar": "<= 2 ms", "met": True, "exact": False, "note": "x"}
    stage = {"stage": "build", "result": "failed", "reason": "no nvcc", "seconds": 1.2}
    text = markdown({"device": "H", "driver": "1", "date": "2026-01-01", "cases": [case], "stages": [stage]})
    assert "| one | <= 2 ms | 1.50 ms (x) | wrong answer |" in text
    assert "| `build` | failed: no nvcc | 1 |" in text


def test_without_a_gpu_nothing_is_tested(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.suite", "--out", str(tmp_path)]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 6
    assert "nothing was tested" in done.stderr
