"""The benchmark runner at tiny sizes, without the packages that only yardsticks need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fllm_export import UserTable

ROOT = Path(__file__).parents[2]
OPTIONS = ["--preset", "tiny", "--threads", "1"]
BLOCKED = ("faiss", "usearch", "numkong", "scann", "onnx")


def run(arguments: list[str], folder: Path) -> str:
    """Run it as a reader of docs/reference/performance.md would, on a machine without the yardsticks' packages."""
    blocked = "".join(f"sys.modules[{name!r}] = None; " for name in BLOCKED)
    program = f"import runpy, sys; {blocked}runpy.run_module('benchmarks.native', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", program, *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert answer.returncode == 0, answer.stderr
    assert not list(folder.glob("bench-*")), "tables were left behind"
    return answer.stdout


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("work")
    return run(
        ["read", "sketch", "budget", "wide", "codecs", "batch", "recall", "disk", *OPTIONS, "--work", str(folder)],
        folder,
    )


@pytest.fixture(scope="module")
def results(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def test_the_first_line_says_what_the_figures_depend_on(results):
    machine = results[0]["machine"]
    assert machine["cpu"]
    assert machine["isa"]
    assert machine["versions"]["numpy"] == np.__version__
    assert results[0]["seed"] == 0


@pytest.mark.parametrize("case", ["read", "sketch", "wide", "codecs", "batch", "disk"])
def test_every_figure_stands_beside_its_yardstick(results, case):
    compared = [result for result in results if result.get("case") == case and "against" in result]
    assert compared
    for result in compared:
        assert result["run"] == results[0]["run"]
        assert 0 < result["ms_min"] <= result["ms"]
        assert 0 < result["against_ms_min"] <= result["against_ms"]
        assert result["times_as_fast"] > 0


def test_missing_packages_are_named_and_stop_nothing(results):
    missing = " ".join(result["what"] for result in results[1:] if "is not here" in result["what"])
    for name in ("FAISS Flat", "usearch exact f32", "NumKong dots int8", "ScaNN AH", "ONNX Runtime"):
        assert name in missing


def test_own_tables_are_tried_on_both_kinds_of_rows(results):
    tried = [r for r in results if r.get("case") == "recall" and "trials" in r]
    assert {r["users"] for r in tried} == {"trained", "gaussian"}
    best = {r["what"]: max(trial["recall"] for trial in r["trials"]) for r in tried}
    assert best["native int8 full pass: trials"] > 0.97
    assert best["native fp16 full pass: trials"] > 0.99
    assert best["native int8 full pass + float32 rows: trials"] > 0.99


def test_a_cold_table_was_really_cold(results):
    cold = [r for r in results if r.get("case") == "disk" and "resident_before" in r]
    assert cold
    assert all(r["resident_before"] < 0.01 for r in cold)


def test_the_report_holds_every_comparison(output, results, tmp_path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text(output)
    report = run(["--report", str(lines)], tmp_path)
    compared = [r for r in results if "against" in r]
    headers = 2 * len({r["case"] for r in compared})
    assert report.count("\n| ") == len(compared) + headers
    for result in compared:
        assert f"{result['ms']:.2f} ({result['ms_min']:.2f}) | {result['against']}" in report


def test_the_contest_shows_the_least_favourable_of_all_runs(tmp_path):
    def line(number: int, against: str, items: int, target: float, ratio: float) -> str:
        about = {"case": "recall", "run": str(number), "users": "trained", "items": items, "load": number}
        return json.dumps({**about, "against": against, "target": target, "times_as_fast": ratio})

    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_text(
        "\n".join([line(1, "Flat", 1, 0.99, 31.2), line(1, "PQ", 1, 0.99, 1.13), line(1, "PQ", 8, 0.999, 5)])
    )
    second.write_text("\n".join([line(2, "Flat", 1, 0.99, 22.7), line(2, "PQ", 1, 0.99, 0.871)]))
    answer = run(["--contest", str(first), str(second)], tmp_path)
    assert "2 runs, load average 1.0 to 2.0" in answer
    assert "| trained | one item, 0.99 | one item, 0.999 | 8 items, 0.99 | 8 items, 0.999 |" in answer
    assert "| Flat | 23 (31) | - | - | - |" in answer
    assert "| PQ | **0.87** (1.13) | - | - | 5.0 |" in answer


def test_recall_and_truth_agree_with_a_full_sort():
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.native.population import Population
        from benchmarks.native.truth import exact_top, recall
    finally:
        sys.path.remove(str(ROOT))
    population = Population("trained", 3_000, 32, 7)
    rows, z = population.all_rows(), population.items(5)
    expected = np.argsort(-(z @ rows.T), axis=1, kind="stable")[:, :20]
    chunks = (rows[start : start + 700] for start in range(0, len(rows), 700))
    found = exact_top(chunks, z, 20)
    np.testing.assert_array_equal(found, expected)
    assert recall(found[:, ::-1], expected) == 1
    found[:, :5] = -1
    assert recall(found, expected) == 0.75


def test_a_wrong_answer_stops_the_run(tmp_path):
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.native.ours import Ours
    finally:
        sys.path.remove(str(ROOT))
    rows = np.random.default_rng(0).standard_normal((500, 16), dtype=np.float32)
    UserTable.create(tmp_path / "users", rows)

    class Wrong(Ours):
        def topk(self, z, k, **options):
            answer = super().topk(z, k, **options)
            answer.user_ids[0, :2] = answer.user_ids[0, 1::-1]
            return answer

    Ours(tmp_path / "users", "native", 1).check(rows[:2], 10)
    with pytest.raises(AssertionError):
        Wrong(tmp_path / "users", "native", 1).check(rows[:2], 10)
