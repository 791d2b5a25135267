from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fllm_export.errors import BundleError, UsageError  # noqa: E402
from fllm_export.training.user_store import UserStore  # noqa: E402

USERS, DIM, RATES = 11, 3, (0.1, 0.02)


@pytest.fixture
def rows():
    return np.random.default_rng(0).standard_normal((USERS, DIM)).astype(np.float32)


@pytest.fixture
def store(tmp_path, rows):
    return UserStore.create(tmp_path / "store", [rows[:4], rows[4:]], USERS, DIM)


def contents(store):
    parts = list(store.chunks())
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([bias for _, bias in parts])


def gradients(seed, users):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(users), DIM, generator=generator), torch.randn(len(users), generator=generator)


def test_a_new_store_has_the_rows_given_and_no_bias(store, rows):
    found, bias = store.gather(np.array([5, 2]))
    assert np.array_equal(found.numpy(), rows[[5, 2]])
    assert not bias.any()
    assert np.array_equal(contents(store)[0], rows)


def test_steps_are_adagrad_with_one_accumulator_per_row(store, rows):
    expected, bias = rows.astype(np.float64), np.zeros(USERS)
    sums, bias_sums = np.zeros(USERS), np.zeros(USERS)
    store.begin()
    for seed, users in enumerate(([1, 4, 9], [0, 4], [4, 9, 10])):
        g, b = gradients(seed, users)
        store.step(np.array(users), g, b, RATES)
        for place, user in enumerate(users):
            sums[user] += float((g[place].double() ** 2).mean())
            bias_sums[user] += float(b[place].double() ** 2)
            expected[user] -= RATES[0] * g[place].numpy() / np.sqrt(sums[user])
            bias[user] -= RATES[1] * float(b[place]) / np.sqrt(bias_sums[user])
    found, found_bias = contents(store)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found_bias, bias, rtol=1e-5, atol=1e-6)
    assert np.array_equal(found[[2, 3, 5]], rows[[2, 3, 5]])


def test_a_gradient_of_zero_moves_nothing(store, rows):
    store.begin()
    store.step(np.array([3]), torch.zeros(1, DIM), torch.zeros(1), RATES)
    assert np.array_equal(contents(store)[0], rows)


def test_a_committed_epoch_is_what_is_opened_again(store):
    store.begin()
    store.step(np.array([3]), *gradients(0, [3]), RATES)
    expected = contents(store)
    store.commit({"q": torch.ones(2)})
    again = UserStore.open(store.directory)
    assert again.epochs == 1
    assert all(np.array_equal(a, b) for a, b in zip(contents(again), expected, strict=True))
    assert torch.equal(again.dense()["q"], torch.ones(2))
    # The accumulators are kept too: the next step is smaller than a first one.
    again.begin()
    again.step(np.array([3]), *gradients(0, [3]), RATES)
    moved = contents(again)[0][3] - expected[0][3]
    assert np.sqrt((moved**2).mean()) == pytest.approx(RATES[0] / np.sqrt(2), rel=1e-3)


def test_an_interrupted_epoch_leaves_nothing(store, rows):
    store.begin()
    store.step(np.array([3]), *gradients(0, [3]), RATES)
    again = UserStore.open(store.directory)
    assert again.epochs == 0
    assert np.array_equal(contents(again)[0], rows)
    assert [path.name for path in store.directory.glob("epoch-*")] == ["epoch-0000"]


def test_a_user_costs_the_row_and_twelve_bytes(store):
    folder = store.directory / "epoch-0000"
    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".safetensors")
    assert size == USERS * (4 * DIM + 12)


def test_a_step_outside_an_epoch_is_refused(store):
    with pytest.raises(UsageError, match="not in an epoch"):
        store.step(np.array([3]), *gradients(0, [3]), RATES)


@pytest.mark.parametrize(("count", "dim"), [(USERS + 1, DIM), (USERS, DIM + 1)])
def test_rows_of_another_number_or_dimension_are_refused(tmp_path, rows, count, dim):
    with pytest.raises(UsageError, match="rows"):
        UserStore.create(tmp_path / "other", [rows], count, dim)


def test_a_directory_in_use_is_refused(store, rows):
    with pytest.raises(UsageError, match="not empty"):
        UserStore.create(store.directory, [rows], USERS, DIM)


def test_a_file_cut_short_is_named(store):
    path = store.directory / "epoch-0000" / "bias"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BundleError, match="bias has 40 bytes"):
        UserStore.open(store.directory)


@pytest.mark.parametrize("text", ["{}", '{"users": "many", "dim": 3, "epochs": 0}'])
def test_a_damaged_state_is_named(store, text):
    (store.directory / "store.json").write_text(text)
    with pytest.raises(BundleError, match="damaged"):
        UserStore.open(store.directory)
