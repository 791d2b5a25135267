"""Tables with features that readers must know stay readable and give the answers that they gave when they were made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fllm_export import UserTable
from fllm_export.table.layout import READER_FEATURES, TableLayout
from fllm_export.table.table import Table

from .answers import assert_as_frozen

FROZEN = sorted(path for path in (Path(__file__).parent / "tables").glob("v*/*") if path.is_dir())


@pytest.mark.parametrize("engine", ["native", "numpy"])
@pytest.mark.parametrize("directory", FROZEN, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_frozen_table_answers_as_it_did(directory: Path, engine: str) -> None:
    expected = json.loads(directory.with_suffix(".json").read_text())
    z = np.array(expected["item_vectors"], np.float32)
    table = UserTable.open(directory, engine=engine)
    assert len(table) == expected["users"]
    Table(directory).verify()
    for mode in ("topk", "sample"):
        answer = table.topk(z, 25, mode=mode, seed=3)
        assert_as_frozen(answer, expected[mode])
        for item, wanted in enumerate(expected[mode]):
            log_probs = [user["log_prob"] for user in wanted["users"]]
            np.testing.assert_allclose(answer.log_probs[item], log_probs, rtol=1e-4)


def test_every_feature_that_readers_must_know_is_frozen_alone_and_with_all_others() -> None:
    features = {path.name: set(TableLayout.load(path).reader_features) for path in FROZEN}
    assert features == {**{name: {name} for name in READER_FEATURES}, "all": set(READER_FEATURES)}
