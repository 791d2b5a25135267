from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")

from fllm_export.coldstart.projection import Projection, ProjectionParams

USERS, DIM = 40, 5


@pytest.mark.parametrize("sharpness", [0.0, 0.5, 1.0])
def test_vectors_minimise_what_the_formula_says(sharpness):
    generator = np.random.default_rng(0)
    users = generator.standard_normal((USERS, DIM)).astype(np.float32)
    places = np.stack([generator.permutation(USERS)[:8] for _ in range(3)])
    probabilities = np.sort(generator.random((3, 8)).astype(np.float32), axis=1)[:, ::-1] / 10
    params = ProjectionParams(k=6, sharpness=sharpness, penalty=0.7, shortening=0.0)
    found = Projection.of(users).vectors(places, probabilities, params)
    assert np.linalg.norm(found, axis=1).mean() == pytest.approx(1, rel=1e-5)
    moments = users.T.astype(float) @ users / USERS
    system = moments + 0.7 * np.trace(moments) / DIM * np.eye(DIM)
    exact = []
    for own, p in zip(places[:, :6], probabilities[:, :6], strict=True):
        weights = p.astype(float) ** sharpness
        wanted = (weights / weights.sum()) @ users[own]
        exact.append(np.linalg.solve(system, wanted))
    exact = np.array(exact)
    np.testing.assert_allclose(found, exact / np.linalg.norm(exact, axis=1).mean(), rtol=1e-4, atol=1e-6)


def test_shortening_takes_lengths_away():
    generator = np.random.default_rng(1)
    users = generator.standard_normal((USERS, DIM)).astype(np.float32)
    places = np.stack([generator.permutation(USERS)[:4] for _ in range(6)])
    rows = Projection.of(users).vectors(places, np.full((6, 4), 0.1, np.float32), ProjectionParams(shortening=1.0))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
