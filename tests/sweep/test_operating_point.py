from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from fllm_export import BundleError, Runtime, UsageError, UserTable, build
from fllm_export.cli.main import main
from fllm_export.operating_point import OperatingPoint
from fllm_export.sweep.choice import Requirement, choose, operating_point

from .records import CONDITIONS, record

POINT = OperatingPoint("int8", 16, True, False, "native", 1, False, "none", 4, None)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


measured = st.tuples(st.floats(0, 1), st.floats(0.01, 1e3), st.floats(1, 1e3), st.sampled_from([1, 2]))


@given(st.lists(measured, min_size=1, max_size=12), st.floats(0, 1), st.one_of(st.none(), st.floats(0.01, 1e3)))
def test_the_cheapest_that_satisfies_is_picked(points, recall, budget_ms):
    records = [
        record(str(number), recall=found, p99_ms=ms, bytes_per_user=size, threads=threads)
        for number, (found, ms, size, threads) in enumerate(points)
    ]
    choice = choose(
        [*records, record("z", "FAISS", index="Flat", recall=1.0, p99_ms=0.001)], Requirement(recall, budget_ms)
    )
    enough = [
        each
        for each in records
        if each.measured.recall >= recall and (budget_ms is None or each.measured.p99_ms <= budget_ms)
    ]
    assert choice.satisfied == bool(enough)
    assert choice.record in (enough or records)
    if enough:
        assert choice.record.measured.bytes_per_user == min(each.measured.bytes_per_user for each in enough)


def test_the_nearest_is_named_where_none_satisfies():
    slow, poor = record("slow", recall=1.0, p99_ms=21.0), record("poor", recall=0.5, p99_ms=1.0)
    assert choose([slow, poor], Requirement(0.99, 20.0)).record == slow
    assert choose([slow, poor], Requirement(0.6, 1.0)).record == poor


def test_a_point_is_kept_whole(tmp_path: Path) -> None:
    picked = operating_point(choose([record(quant="int4", exact=False)], Requirement(0.9)), CONDITIONS)
    picked.save(tmp_path / "point.json")
    again = OperatingPoint.load(tmp_path / "point.json")
    assert again == picked
    assert again.why["required"] == {"recall": 0.9, "budget_ms": None, "k": 100}
    assert (again.quant, again.exact, again.threads) == ("int4", False, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format_version": 3}, "format version 3"),
        ({"open": {"engine": "native", "threads": 1, "exact": True}}, "'log_probs'"),
        ({"open": {"engine": "native", "threads": 0, "exact": True, "log_probs": "none"}}, "threads is 0"),
        ({"open": {"engine": 7, "threads": 1, "exact": True, "log_probs": "none"}}, "engine is 7"),
        ({"table": []}, "not an operating point"),
        ({"why": None}, "not an operating point"),
    ],
)
def test_files_that_are_something_else_are_refused(tmp_path: Path, changed: dict, message: str) -> None:
    path = tmp_path / "point.json"
    POINT.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(BundleError, match=message):
        OperatingPoint.load(path)
    with pytest.raises(BundleError, match="cannot be read"):
        OperatingPoint.load(tmp_path / "missing.json")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).standard_normal((2_000, 16), dtype=np.float32)
    UserTable.create(tmp_path / "users", rows, sketch="yes", cluster="no")
    POINT.save(tmp_path / "point.json")
    return tmp_path


def test_a_file_that_is_missing_or_no_json_says_which_one_to_name(tmp_path: Path) -> None:
    (tmp_path / "rows.npy").write_bytes(b"\x93NUMPY")
    for name in ("missing.json", "rows.npy"):
        with pytest.raises(BundleError, match=f"{name} .*Name the operating_point.json of a sweep"):
            OperatingPoint.load(tmp_path / name)


@pytest.mark.parametrize(
    ("quant", "stored_as", "told"),
    [
        ("int4row", "build", True),
        ("int8", "build", False),
        ("int4row", "users create", False),
        ("int4row", None, False),
    ],
)
def test_users_create_tells_where_it_rounds_otherwise(tmp_path: Path, quant, stored_as, told) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).standard_normal((100, 16), dtype=np.float32))
    about = {} if stored_as is None else {"about": {"subject": {"stored_as": stored_as}}}
    replace(POINT, quant=quant, sketch=False, why=about).save(tmp_path / "point.json")
    given = ["users", "create", tmp_path / "users", tmp_path / "rows.npy", "--operating-point", tmp_path / "point.json"]
    found = run(*given)
    assert found.exit_code == 0, found.output
    assert ("Rows are rounded to the nearest here, so recall is lower." in found.stderr) == told


def test_a_table_is_opened_as_the_point_says(table: Path) -> None:
    z = np.random.default_rng(1).standard_normal((2, 16), dtype=np.float32)
    opened = UserTable.open(table / "users", operating_point=table / "point.json")
    for users in (opened, pickle.loads(pickle.dumps(opened))):
        answer = users.topk(z, 5)
        assert not answer.exact.any()
        assert np.isnan(answer.log_probs).all()
    assert opened.topk(z, 5, exact=True, log_probs="exact").log_probs_exact.all()
    assert opened._source.threads == 1
    again = UserTable.open(table / "users", operating_point=POINT, engine="numpy", threads=2)
    assert (again.engine, again._source.threads) == ("numpy", 2)
    assert UserTable.open(table / "users").topk(z, 5).exact.all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"quant": "int4"}, "has quant int8; expected quant int4"),
        ({"dim": 8, "cluster": True}, "has dim 16, cluster False; expected dim 8, cluster True"),
        ({"sketch": False}, "has sketch True"),
    ],
)
def test_a_table_of_another_kind_is_refused(table: Path, changed: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        UserTable.open(table / "users", operating_point=replace(POINT, **changed))
    with pytest.raises(UsageError, match="operating_point"):
        UserTable.open(table / "users", operating_point=7)


def test_a_sweep_picks_a_point_that_build_and_open_take(tiny_checkpoint, item_texts, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("bert", users=300)
    checkpoint.save(tmp_path / "checkpoint")
    texts = tmp_path / "items.txt"
    texts.write_text("\n".join(item_texts))
    out, file = tmp_path / "out", tmp_path / "out" / "operating_point.json"
    sweep = ["sweep", tmp_path / "checkpoint", "--items", texts, "-o", out, "-k", 10, "--seconds", 0, "--threads", 1]
    sweep += ["--quant", "fp16,int8", "--sketch", "no", "--cluster", "yes"]
    found = run(*sweep, "--target-recall", 0.9, "--budget-ms", 60_000, "--json")
    assert found.exit_code == 0, found.output
    point = OperatingPoint.load(file)
    assert point.quant == "int8"
    assert json.loads(found.stdout)["operating_point"] == point.why["point"]
    assert "Passed" in (out / "report.html").read_text()
    told = run(*sweep, "--target-recall", 0.9, "--budget-ms", 60_000).stdout
    assert "It was measured without log-probabilities, so searches by it return none. See --log-probs." in told

    common = ["build", tmp_path / "checkpoint", "-o", tmp_path / "bundle", "--calibration", texts, "-k", 10]
    common += ["--min-recall", 0.5, "--operating-point", file]
    refused = run(*common, "--quant", "fp16")
    assert (refused.exit_code, "quant given beside an operating point" in refused.stderr) == (2, True)
    built = run(*common)
    assert built.exit_code == 0, built.output
    runtime = Runtime.open(tmp_path / "bundle", operating_point=file)
    assert np.isnan(pickle.loads(pickle.dumps(runtime)).topk(item_texts[:2], 3).log_probs).all()
    same = build(checkpoint, tmp_path / "bundle", calibration=texts, k=10, min_recall=0.5, operating_point=point)
    assert same.table().layout.generation == 1
    assert same.table().layout.tile_bounds

    late = run(*sweep, "--target-recall", 1.0, "--budget-ms", 0.0001)
    assert late.exit_code == 3
    assert "comes nearest, with recall" in late.stderr
    assert "fp16-d16" in late.stdout
    assert "operating point:" not in late.stdout
    failed = json.loads(run(*sweep, "--target-recall", 1.0, "--budget-ms", 0.0001, "--json").stdout)
    assert failed["error"]["exit_code"] == 3
    assert not file.exists()
    assert "No point satisfies it" in (out / "report.html").read_text()
