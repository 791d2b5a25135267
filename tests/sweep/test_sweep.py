from __future__ import annotations

import csv
import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fllm_export import UserTable
from fllm_export.calibration.directions import Directions
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.row_form import RowForm
from fllm_export.calibration.trials import Trials
from fllm_export.calibration.user_sample import UserSample
from fllm_export.cli.main import main
from fllm_export.sweep.grid import Axes, Limits, make_grid
from fllm_export.sweep.point import AXES
from fllm_export.sweep.record import Measured, Record
from fllm_export.sweep.subject import Subject
from fllm_export.sweep.sweep import Settings, sweep
from fllm_export.sweep.tabular import COLUMNS, csv_text
from fllm_export.sweep.truth import Corpus

from .conftest import DIM
from .records import record, sweep_of

PAGE = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_recall_is_that_of_the_table_itself(subject, limits, tmp_path):
    grid = make_grid(Axes(quant=("fp32", "int8"), sketch=(False,)), limits)
    found = {
        record.axes["quant"]: record.measured for record in sweep(subject, grid, tmp_path, Settings(20, 0)).records
    }
    rows, _, items = subject.corpus
    table = UserTable.create(tmp_path / "users", rows, quant="int8")
    truth = np.argsort(-(items @ rows.T), axis=1)[:, :20]
    shared = [len(np.intersect1d(a, b)) / 20 for a, b in zip(truth, table.topk(items, 20).user_ids, strict=True)]
    assert found["int8"].recall == pytest.approx(np.mean(shared))
    assert found["int8"].worst_recall == pytest.approx(min(shared))
    assert found["fp32"].recall == 1.0
    assert found["fp32"].bytes_per_user > found["int8"].bytes_per_user > rows.shape[1]
    for measured in found.values():
        assert 0 < measured.median_low_ms <= measured.median_ms <= measured.median_high_ms
        assert measured.median_ms <= measured.p99_ms
        assert measured.runs >= 5
        assert min(measured.items_per_s, measured.build_s, measured.yardstick_ms) > 0
        assert measured.coverage == 1


def test_items_that_are_asked_do_not_shape_the_sketch(subject):
    assert len(subject.corpus.items) == 12
    assert len(subject.others) == 20
    assert not set(map(bytes, subject.corpus.items)) & set(map(bytes, subject.others))


def test_fewer_dimensions_lose_recall_and_bytes(subject, limits, tmp_path):
    axes = Axes(quant=("fp32", "int8"), dim=(4, 16, 32), sketch=(False,), cluster=(False,))
    found = {}
    for each in sweep(subject, make_grid(axes, limits), tmp_path, Settings(20, 0)).records:
        found[each.axes["quant"], each.axes["dim"]] = each.measured
    for quant in ("fp32", "int8"):
        four, sixteen, whole = (found[quant, dim] for dim in (4, 16, 32))
        assert 0.05 < four.recall < sixteen.recall < whole.recall
        assert four.bytes_per_user < sixteen.bytes_per_user < whole.bytes_per_user
    rows, _, items = subject.corpus
    cut = subject.directions.transform(16, 0.5)
    scores = cut.item_vectors(items) @ cut.rows(rows).T
    truth, kept = (np.argsort(-s, axis=1)[:, :20] for s in (items @ rows.T, scores))
    shared = [len(np.intersect1d(a, b)) / 20 for a, b in zip(truth, kept, strict=True)]
    assert found["fp32", 16].recall == pytest.approx(np.mean(shared))
    assert subject.cut_dim == 20


@pytest.mark.parametrize("dim", [DIM, 20])
def test_rows_of_a_checkpoint_are_stored_as_a_build_stores_them(dim, tmp_path):
    generator = np.random.default_rng(5)
    weights = (np.arange(1, DIM + 1) ** -1.0).astype(np.float32)
    rows, z = (generator.standard_normal((n, DIM), dtype=np.float32) * weights for n in (2_000, 212))
    given = Subject(Corpus(rows, None, z[:12]), z[12:], "rows", "the rows")
    trained = replace(given, checkpoint=True)
    grid = make_grid(Axes(quant=("int2", "int4row"), dim=(dim,), sketch=(False,)), Limits(DIM, DIM, 12, 1, {}))
    plain, built = (
        {
            record.axes["quant"]: record.measured.recall
            for record in sweep(subject, grid, tmp_path / subject.facts["stored_as"], Settings(20, 0)).records
        }
        for subject in (given, trained)
    )
    directions = Directions.of(Moments.of([z[12:]]), Moments.of([rows]))
    sample = UserSample(rows, None, np.argsort(-(z[:12] @ rows.T), axis=1)[:, :20], len(rows), len(rows))
    trials = Trials(sample, z[:12], Moments.of([z[12:]]), directions)
    for quant in ("int2", "int4row"):
        expected = trials.recalls(RowForm(quant, dim, "data"), slice(None)).mean()
        assert built[quant] == pytest.approx(expected, abs=0.01)
        assert built[quant] >= plain[quant]
    assert built["int2"] > plain["int2"]


def test_too_few_items_leave_rows_of_a_checkpoint_rounded_to_the_nearest(subject):
    trained = replace(subject, checkpoint=True)
    assert [trained.form("int2", dim).rounding for dim in (20, 21)] == ["data", "nearest"]
    assert subject.form("int2", 20).rounding == trained.form("fp16", 20).rounding == "nearest"


def test_a_budget_shows_in_coverage_and_recall(subject, limits, tmp_path):
    axes = Axes(quant=("int8",), sketch=(False,), engine=("numpy",), call_budget_ms=(1e-3, None))
    cut, whole = (
        record.measured for record in sweep(subject, make_grid(axes, limits), tmp_path, Settings(20, 0)).records
    )
    assert whole.coverage == 1
    assert cut.coverage <= 1
    assert cut.recall <= whole.recall


def test_the_command_sweeps_a_raw_table(files, tmp_path):
    out = tmp_path / "out"
    arguments = ["sweep", files / "rows.npy", "--items", files / "items.npy", "-o", out, "-k", 20, "--seconds", 0]
    arguments += ["--queries", 12, "--quant", "int8", "--threads", 1]
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["schema"] == "fllm-export/sweep"
    assert [found["quant"] for found in document["records"]] == ["int8"] * 3
    assert sum(document["left_out"].values()) == 1
    assert "1 combination left out" in result.stderr
    lines = [json.loads(line) for line in (out / "sweep.jsonl").read_text().splitlines()]
    assert [Record.from_dict(line).point for line in lines] == [found["point"] for found in document["records"]]
    with (out / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["point"] for row in rows] == [line["point"] for line in lines]
    for row, line in zip(rows, lines, strict=True):
        assert float(row["recall"]) == line["measured"]["recall"]
        assert row["conditions"] == line["conditions"]
    again = run(*arguments)
    assert f"3 points in {out}; 3 of them from an earlier run" in again.stdout
    assert "*" in again.stdout


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--quant", "int8,int9"], "'int9' is not one of"),
        (["--sketch", "maybe"], "'maybe' is not one of 'yes', 'no'"),
        (["--batch", "0"], "0 is not in the range x>=1"),
        (["--call-budget-ms", "none,-1"], "-1.0 is not in the range x>0"),
        (["--batch", "1000"], "no point is left of the grid"),
        (["-k", "100000"], "k is 100000; expected an integer from 1 to 3000"),
    ],
)
def test_the_command_names_invalid_values(files, tmp_path, extra, message):
    result = run("sweep", files / "rows.npy", "--items", files / "items.npy", "-o", tmp_path / "out", *extra)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_bundle_is_swept_with_texts_and_its_table_with_vectors(tiny_bundle, item_texts, tmp_path):
    texts = tmp_path / "items.txt"
    texts.write_text("\n".join(item_texts))
    common = ["--quant", "int8,fp32", "--sketch", "no", "-k", 10, "--seconds", 0, "--threads", 1, "--json"]
    result = run("sweep", tiny_bundle.path, "--items", texts, "-o", tmp_path / "one", *common)
    assert result.exit_code == 0, result.output
    found = {record["quant"]: record["recall"] for record in json.loads(result.stdout)["records"]}
    assert found["fp32"] == 1.0
    assert "int8 rows" in json.loads(result.stdout)["conditions"]["subject"]["reference"]
    refused = run("sweep", tiny_bundle.path / "users", "--items", texts, "-o", tmp_path / "two", *common)
    assert refused.exit_code == 2
    assert "holds no vectors, and there is no encoder" in refused.stderr
    assert run("sweep", texts.parent, "--items", texts, "-o", tmp_path / "three").exit_code == 2


def test_a_checkpoint_is_swept_against_its_own_rows(tiny_checkpoint, item_texts, tmp_path):
    checkpoint = tiny_checkpoint("bert", users=300)
    checkpoint.save(tmp_path / "checkpoint")
    texts = tmp_path / "items.txt"
    texts.write_text("\n".join(item_texts))
    common = ["--quant", "fp32,int4", "--sketch", "no", "-k", 10, "--seconds", 0, "--engine", "native,onnxruntime"]
    result = run("sweep", tmp_path / "checkpoint", "--items", texts, "-o", tmp_path / "out", *common, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    recalls = {(record["quant"], record["engine"]): record["recall"] for record in document["records"]}
    assert recalls["fp32", "native"] == recalls["fp32", "onnxruntime"] == 1.0
    assert recalls["int4", "native"] == pytest.approx(recalls["int4", "onnxruntime"], abs=0.02)
    assert recalls["int4", "native"] < 1
    assert document["conditions"]["subject"]["reference"] == "the fp32 checkpoint"


def test_the_page_describes_every_column():
    for name in (*(field.name for field in fields(Measured)), *AXES, "dominated_in_latency_by"):
        assert f"`{name}`" in PAGE, f"docs/sweeps.md does not describe {name}"
    assert set(re.findall(r"`(--[a-z-]+)`", PAGE)) <= {
        flag for option in main.commands["sweep"].params for flag in option.opts
    }


def test_csv_and_records_keep_their_form():
    table = list(csv.DictReader(csv_text(sweep_of(record("a"), record("b", "FAISS", recall=0.9))).splitlines()))
    assert tuple(table[0]) == COLUMNS
    assert [row["dominated_in_latency_by"] for row in table] == ["", "a"]
    assert table[1]["quant"] == ""
    assert Record.from_dict(json.loads(record("a").line(sweep_of().conditions))) == record("a")
