from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from fllm_export.calibration.directions import Directions
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.ranks import best_rows, shared
from fllm_export.calibration.row_form import RowForm
from fllm_export.calibration.trials import Trials
from fllm_export.calibration.user_sample import UserSample
from fllm_export.table.codecs import codec

F32 = npt.NDArray[np.float32]
USERS, DIM, TEXTS, K = 3_000, 32, 24, 20


class Users:
    """Rows with a decaying spectrum and biases, in chunks; what was gathered."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        mixing = generator.standard_normal((DIM, DIM)) * np.linspace(2, 0.1, DIM)[:, None]
        self.rows = (generator.standard_normal((USERS, DIM)) @ mixing).astype(np.float32)
        self.bias = generator.standard_normal(USERS).astype(np.float32)
        self.z = generator.standard_normal((TEXTS, DIM)).astype(np.float32)
        self.others = generator.standard_normal((500, DIM)).astype(np.float32)

    def chunks(self) -> Iterator[tuple[F32, F32]]:
        for first in range(0, USERS, 700):
            yield self.rows[first : first + 700], self.bias[first : first + 700]

    def gather(self, numbers: npt.NDArray[np.int64]) -> tuple[F32, F32]:
        assert (np.diff(numbers) > 0).all()
        return self.rows[numbers], self.bias[numbers]

    def draw(self, numbers_most: int) -> UserSample:
        return UserSample.draw(self.z, K, USERS, self.chunks, self.gather, numbers_most)

    @property
    def best(self) -> npt.NDArray[np.int64]:
        return np.argsort(-(self.z @ self.rows.T + self.bias), axis=1, kind="stable")[:, :K]


@pytest.fixture(scope="module")
def users() -> Users:
    return Users()


def test_a_small_table_is_taken_whole(users: Users) -> None:
    sample = users.draw(USERS * DIM)
    assert sample.whole
    assert sample.users == sample.depth == USERS
    np.testing.assert_array_equal(sample.rows, users.rows)
    np.testing.assert_array_equal(sample.best, users.best)


@pytest.mark.parametrize("most", [2_500, 1_200, 400])
def test_a_sample_holds_the_best_users_of_every_text(users: Users, most: int) -> None:
    sample = users.draw(most * DIM)
    assert not sample.whole
    assert K <= sample.depth <= 4 * K
    assert len(sample.rows) <= most or sample.depth == K
    for text in range(TEXTS):
        np.testing.assert_array_equal(sample.rows[sample.best[text]], users.rows[users.best[text]])


def test_recall_on_a_sample_is_close_above_that_on_all_users(users: Users) -> None:
    items = Moments.of([users.others])
    directions = Directions.of(items, Moments.of([users.rows]))
    whole, part = (Trials(users.draw(most * DIM), users.z, items, directions) for most in (USERS, 1_500))
    forms = {RowForm("int2", 16, "data"): 0.02, RowForm("int4row", 32, "nearest"): 0, RowForm("int8", 24, "nearest"): 0}
    for form, most in forms.items():
        exact, upper = (trials.recalls(form, slice(None)).mean() for trials in (whole, part))
        assert exact <= upper <= exact + most


def test_a_plain_form_is_measured_as_its_codec_stores_it(users: Users) -> None:
    trials = Trials(users.draw(USERS * DIM), users.z, None, None)
    kind = codec("int8")
    stored = kind.decode(kind.encode(users.rows), DIM)
    found, _ = best_rows(users.z, [(stored, users.bias)], K)
    expected = shared(users.best, found)
    np.testing.assert_array_equal(trials.recalls(RowForm("int8", DIM, "nearest"), slice(None)), expected)
    np.testing.assert_array_equal(trials.recalls(RowForm("int8", DIM, "nearest"), slice(3, 9)), expected[3:9])
    assert trials.recalls(RowForm("fp32", DIM, "nearest"), slice(None)).mean() == 1.0
