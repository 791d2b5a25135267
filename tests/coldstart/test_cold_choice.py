from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")

from fllm_export.coldstart.cold_choice import GRID, ColdChoice
from fllm_export.coldstart.projection import Projection, ProjectionParams
from fllm_export.coldstart.pseudo_sources import cold_items

from .small_loop import random_dataset


@pytest.mark.parametrize("users", [12, 30])
def test_no_more_users_per_item_are_chosen_than_there_are(users: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_dataset(users=users)
    items = cold_items(data)
    choice = ColdChoice.of(data, items, 3)
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((users, 4)).astype(np.float32)
    places = generator.permuted(np.tile(np.arange(users), (len(items), 1)), axis=1)
    probabilities = np.full(places.shape, 1 / users, np.float32)
    tried: list[int] = []
    vectors = Projection.vectors

    def noted(self: Projection, places: np.ndarray, probabilities: np.ndarray, params: ProjectionParams) -> np.ndarray:
        tried.append(params.k)
        return vectors(self, places, probabilities, params)

    monkeypatch.setattr(Projection, "vectors", noted)
    assert choice.best(Projection.of(rows), places, probabilities).k <= users
    assert set(tried) == {min(int(k), users) for k in GRID["k"]}
