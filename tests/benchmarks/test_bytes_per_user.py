"""benchmarks/bytes_per_user: figures of a small study, and what is not measured twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from benchmarks.bytes_per_user.__main__ import Bench, Results, sizes, smallest
from benchmarks.bytes_per_user.peers import libraries
from benchmarks.bytes_per_user.study import K, Study
from fllm_export.calibration.row_form import RowForm
from fllm_export.evaluation.dataset import SPLITS, Dataset, Pairs
from fllm_export.table.codecs import codec

USERS, DIM = 600, 64
ITEMS = {"train": 300, "cold_val": 40, "cold_test": 60}


@pytest.fixture(scope="module")
def study() -> Study:
    """Rows whose scores lie in a few directions above all, and three pairs for each item."""
    generator = np.random.default_rng(0)
    rows = (generator.standard_normal((USERS, DIM)) * np.linspace(2, 0.1, DIM)).astype(np.float32)
    z = generator.standard_normal((sum(ITEMS.values()), DIM)).astype(np.float32)
    splits = {name: Pairs(np.empty(0, np.int64), np.empty(0, np.int64)) for name in SPLITS}
    first = 0
    for name, count in ITEMS.items():
        items = np.repeat(np.arange(first, first + count), 3)
        splits[name] = Pairs(np.argsort(-(z[first : first + count] @ rows.T), 1)[:, :3].ravel(), items)
        first += count
    data = Dataset(np.arange(len(z)), ("a text",) * len(z), np.arange(USERS), splits, "0" * 64)
    return Study(rows, generator.standard_normal(USERS).astype(np.float32), data, np.arange(len(z)), z)


def test_fp32_rows_keep_everything_and_fewer_bits_less(study: Study) -> None:
    whole = study.judge(study.stored(RowForm("fp32", DIM, "nearest")))
    coarse = study.judge(study.stored(RowForm("int2", 32, "data")))
    assert whole["recall"] == 1.0
    assert coarse["recall"] < 1.0
    assert coarse["ndcg_A"] < whole["ndcg_A"]
    one_bit = study.screen(study.stored(RowForm("int1", DIM, "data")))["choosing_recall"]
    assert K / USERS < one_bit < study.screen(study.stored(RowForm("int2", DIM, "data")))["choosing_recall"]


def test_tables_stay_within_their_bytes_and_choose_no_worse_than_plain_rounding(study: Study, tmp_path: Path) -> None:
    bench = Bench(study, Results(tmp_path / "results.jsonl", study.fingerprint))
    header, *rows = list(sizes(bench, [24]))
    assert all(len(row) == len(header) for row in rows)
    chosen = bench.chosen(24)
    assert chosen.bytes == codec(chosen.form.quant).row_bytes(chosen.form.dim) + 4 <= 24
    assert f"**{chosen.form}**" in [row[1] for row in rows]
    plain = study.screen(study.reference("int2", 64))["choosing_recall"]
    assert chosen.recall >= plain - 0.02
    found = list(smallest(bench))
    assert [row[0] for row in found] == ["required", "recall@100 0.99", "99.5% of NDCG@20"]


def test_lvq_ranks_as_its_sixteen_values_per_dimension_let_it(study: Study) -> None:
    sphered, turned = libraries(study, 36)["LeanVec, LVQ"]
    assert [sphered.name, turned.name] == ["LVQ 4 bits sphered x 64", "LVQ 4 bits x 64, along the directions"]
    four_bits = study.screen(study.stored(RowForm("int4row", DIM, "nearest")))["choosing_recall"]
    for way in (sphered, turned):
        # Halves of a step of at most the rows' extent are lost; directions left out would lose more.
        assert study.screen(way)["choosing_recall"] > 0.8 * four_bits
    cut = libraries(study, 8)["LeanVec, LVQ"][0]
    assert cut.name == "LVQ 4 bits sphered x 8"
    assert study.screen(cut)["choosing_recall"] < study.screen(sphered)["choosing_recall"]


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert Results(path, "one").get("a", lambda: {"recall": 0.5}) == {"recall": 0.5}
    with path.open("a") as file:
        file.write('{"about": "one", "na')
    again = Results(path, "one")
    assert again.get("a", lambda: pytest.fail("measured twice")) == {"recall": 0.5}
    assert Results(path, "two").get("a", lambda: {"recall": 0.25}) == {"recall": 0.25}
