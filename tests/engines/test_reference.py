from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fllm_export import UserTable
from fllm_export.engines.query import LARGEST, Query
from fllm_export.engines.reference import score
from fllm_export.engines.registry import ENGINES
from fllm_export.table.table import Table

GENERATOR = np.random.default_rng(0)


def test_query_limbs_rebuild_the_integers() -> None:
    z = np.concatenate([GENERATOR.standard_normal((5, 33)), np.zeros((1, 33))]).astype(np.float32)
    query = Query.quantised(z)
    high, low = query.limbs.astype(np.int64)
    np.testing.assert_array_equal(128 * high + low, query.values)
    assert np.abs(query.values).max() == LARGEST
    assert high.min() >= -64
    assert high.max() <= 63
    assert low.min() >= -64
    assert low.max() <= 63
    np.testing.assert_allclose(query.values * query.scale[:, None], z, atol=np.abs(z).max() / LARGEST)


@pytest.mark.parametrize("quant", ["int8", "fp8", "int4", "int4row", "int2", "int1"])
def test_the_sum_of_a_score_is_exact(tmp_path: Path, quant: str) -> None:
    """Against rational arithmetic: no rounding before the last."""
    rows = (GENERATOR.standard_normal((40, 70)) * np.logspace(-3, 3, 40)[:, None]).astype(np.float32)
    UserTable.create(tmp_path / "t", rows, quant=quant)
    table = Table(tmp_path / "t")
    tile = next(table.tiles())
    query = Query.quantised(GENERATOR.standard_normal((3, 70)).astype(np.float32))
    values = table.codec.values(tile.stored, 70)
    found = score(table, tile, query)
    for item in range(3):
        for user in range(40):
            exact = sum(Fraction(float(v)) * int(q) for v, q in zip(values[user], query.values[item], strict=True))
            scale = query.scale[item] * np.float64(tile.stored["scales"][user])
            assert found[item, user] == np.float32(float(exact) * scale)


@pytest.mark.parametrize(
    ("quant", "recall"),
    [
        ("fp32", 1.0),
        ("fp16", 0.99),
        ("int8", 0.97),
        ("fp8", 0.9),
        ("int4", 0.8),
        ("int4row", 0.8),
        ("int2", 0.5),
        ("int1", 0.25),
    ],
)
def test_recall_against_float_rows(tmp_path: Path, quant: str, recall: float) -> None:
    rows = (GENERATOR.standard_normal((20_000, 64)) * GENERATOR.lognormal(size=(20_000, 1))).astype(np.float32)
    z = GENERATOR.standard_normal((8, 64)).astype(np.float32)
    answer = UserTable.create(tmp_path / "t", rows, quant=quant).topk(z, 100)
    truth = np.argsort(-(z @ rows.T), axis=1)[:, :100]
    found = np.mean([len(np.intersect1d(a, b)) / 100 for a, b in zip(answer.user_ids, truth, strict=True)])
    assert found >= recall


@pytest.mark.parametrize("quant", ENGINES["native"].codecs)
def test_bias_is_added_to_scores(tmp_path: Path, quant: str) -> None:
    rows = GENERATOR.standard_normal((500, 24)).astype(np.float32)
    bias = (GENERATOR.standard_normal(500) * 10).astype(np.float32)
    z = GENERATOR.standard_normal((1, 24)).astype(np.float32)
    plain = UserTable.create(tmp_path / "plain", rows, quant=quant).topk(z, 500)
    biased = UserTable.create(tmp_path / "biased", rows, bias=bias, quant=quant).topk(z, 500)
    without, having = np.empty(500), np.empty(500)
    without[plain.user_ids[0]], having[biased.user_ids[0]] = plain.scores[0], biased.scores[0]
    np.testing.assert_allclose(having - without, bias, atol=1e-4)
