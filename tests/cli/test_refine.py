"""Refinement rows and operating points on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fllm_export import UserTable
from fllm_export.cli.main import main
from fllm_export.operating_point import OperatingPoint

ROWS = np.random.default_rng(0).standard_normal((3000, 32)).astype(np.float32)
ITEMS = np.random.default_rng(1).standard_normal((3, 32)).astype(np.float32)
POINT = OperatingPoint("int2", 32, False, False, "native", 1, True, "none", 2, None, "int8", 3)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def run_json(*arguments: object) -> dict:
    found = run(*arguments, "--json")
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    np.save(tmp_path / "rows.npy", ROWS)
    np.save(tmp_path / "items.npy", ITEMS)
    POINT.save(tmp_path / "point.json")
    return tmp_path


def test_a_table_with_refinement_rows_from_the_command_line(here: Path) -> None:
    made = run_json("users", "create", here / "t", here / "rows.npy", "--quant", "int2", "--refine", "fp16")
    assert made["refinement"] == "fp16"
    told = run("users", "create", here / "again", here / "rows.npy", "--quant", "int2", "--refine", "fp16")
    assert "int2 with fp16 refinement" in told.stdout
    assert run_json("inspect", here / "t")["refinement"] == "fp16"
    assert run_json("verify", here / "t")["files"] == 3
    table = UserTable.open(here / "t")
    for refine in (None, 0, 1, 9):
        asked = [] if refine is None else ["--refine", refine]
        found = run_json("query", here / "t", "--file", here / "items.npy", "-k", 5, *asked)
        expected = table.topk(ITEMS, 5, refine=refine)
        users = [[user["user_id"] for user in item["users"]] for item in found["items"]]
        assert users == expected.user_ids.tolist()
        assert found["items"][0]["log_probs_exact"] == (refine == 0)
    timed = run_json("bench", here / "t", "--file", here / "items.npy", "--repeats", 1, "--refine", 2, "--batch", 1)
    assert (timed["refine"], timed["dim"]) == (2, 32)
    refused = run("query", here / "t", "--file", here / "items.npy", "--engine", "cuda")
    assert refused.exit_code == 2
    assert "does not read refinement rows" in refused.output


def test_an_operating_point_makes_and_asks_a_table(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = ["--operating-point", here / "point.json"]
    made = run_json("users", "create", here / "t", here / "rows.npy", *point)
    assert (made["codec"], made["refinement"], made["clustered"]) == ("int2", "int8", False)
    # What the environment says of every table does not come before the point.
    monkeypatch.setenv("FLLM_ENGINE", "numpy")
    found = run_json("query", here / "t", "--file", here / "items.npy", "-k", 5, *point)
    expected = UserTable.open(here / "t", operating_point=POINT).topk(ITEMS, 5)
    assert [[user["user_id"] for user in item["users"]] for item in found["items"]] == expected.user_ids.tolist()
    assert found["items"][0]["logsumexp"] is None
    footer = "point.json was measured without log-probabilities, so no probability is computed."
    asked = ["query", here / "t", "--file", here / "items.npy", "-k", 5]
    assert run(*asked, *point).stdout.count(footer) == 1
    assert footer not in run(*asked, *point, "--log-probs", "exact").stdout
    assert footer not in run(*asked, "--log-probs", "none").stdout
    timed = run_json("bench", here / "t", "--file", here / "items.npy", "--repeats", 1, *point)
    assert (timed["engine"], timed["log_probs"], timed["refine"]) == ("native", "none", 3)
    assert [result["batch"] for result in timed["results"]] == [2]
    typed = ["--engine", "numpy", "--log-probs", "exact", "--refine", 0, "--batch", 1]
    timed = run_json("bench", here / "t", "--file", here / "items.npy", "--repeats", 1, *point, *typed)
    assert (timed["engine"], timed["log_probs"], timed["refine"]) == ("numpy", "exact", 0)
    assert [result["batch"] for result in timed["results"]] == [1]


def test_what_contradicts_an_operating_point_is_refused(here: Path) -> None:
    point = ["--operating-point", here / "point.json"]
    twice = run("users", "create", here / "t", here / "rows.npy", "--refine", "fp16", *point)
    assert twice.exit_code == 2
    assert "refine given beside an operating point" in twice.output
    replace(POINT, dim=16).save(here / "point.json")
    cut = run("users", "create", here / "t", here / "rows.npy", *point)
    assert cut.exit_code == 2
    assert "has rows of dimension 16, and VECTORS have 32" in cut.output
    UserTable.create(here / "plain", ROWS, quant="int2", cluster="no")
    replace(POINT, dim=32).save(here / "point.json")
    other = run("query", here / "plain", "--file", here / "items.npy", *point)
    assert other.exit_code == 2
    assert "has refine no; expected refine int8" in other.output


def test_the_plan_counts_refinement_rows(here: Path) -> None:
    asked = ["estimate", "--rows", 3000, "--dim", 32, "--quant", "int2", "--folder", here, "--batch", 1]
    with_them = run_json(*asked, "--refine", "int8")["bytes"]
    without = run_json(*asked)["bytes"]
    assert with_them["refinement rows"]["value"] == 3000 * 36
    assert "refinement rows" not in without
    run_json("users", "create", here / "t", here / "rows.npy", "--quant", "int2", "--refine", "int8")
    assert with_them["disk"]["value"] == sum(path.stat().st_size for path in (here / "t").iterdir())
    assert with_them["memory to search"]["value"] == without["memory to search"]["value"]


def test_a_sweep_has_tables_with_refinement_rows(here: Path) -> None:
    more = np.random.default_rng(2).standard_normal((80, 32)).astype(np.float32)
    np.save(here / "items.npy", more)
    found = run_json(
        *("sweep", here / "rows.npy", "--items", here / "items.npy", "-o", here / "out", "--queries", 20, "-k", 20),
        *("--quant", "int2", "--dim", "16,32", "--sketch", "no", "--cluster", "no", "--exact", "yes"),
        *("--refine", "no,int8", "--candidates", "1,8", "--seconds", 0, "--threads", 1),
    )
    recalls = {record["point"]: record["recall"] for record in found["records"]}
    assert len(recalls) == 6
    for dim in (16, 32):
        plain, one, eight = (
            next(value for name, value in recalls.items() if name.startswith(f"int2-d{dim}") and part in name)
            for part in ("exact-none-b1", "-c1-", "-c8-")
        )
        assert plain <= one + 0.05
        assert eight > one
