import json

import numpy as np
import pytest

from fllm_export import UsageError, UserTable
from fllm_export.table import sketch
from fllm_export.table.codecs import codec

SHAPES = [(128, 128), (128, 64), (100, 112), (20, 16), (256, 192)]


def stored_rows(count, dim, seed=0):
    """Rows of an int8 table, hard ones among them: as float32, and as the exact numbers that they stand for."""
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((count, dim)) * np.exp(2 * generator.standard_normal((count, 1)))
    rows[0] = 0
    rows[1] = 3
    rows[2] = 0
    rows[2, dim // 2] = 1e5
    rows[3] *= 1e-30
    rows[4] *= 1e25
    rows[5] = 1e-40
    int8 = codec("int8")
    encoded = int8.encode(rows.astype(np.float32))
    exact = encoded["codes"].astype(np.float64) * encoded["scales"].astype(np.float64)[:, None]
    return int8.decode(encoded, dim), exact


def scores_and_bounds(stored, prepared, rows, *, fine):
    """Estimates and upper bounds of the scores of a shard's rows, float64 [rows], in the plainest way."""
    read, parts = sketch.codes(stored, fine=fine)[:rows], sketch.factors(stored, fine=fine)[:, :rows]
    return sketch.bounds_of(read @ prepared.limb.astype(np.float64), parts, prepared, fine=fine)


@pytest.mark.parametrize(("dim", "dims"), SHAPES)
@pytest.mark.parametrize("fine", [False, True])
def test_no_score_exceeds_its_bound(dim, dims, fine):
    rows, exact = stored_rows(333, dim)
    basis = sketch.make_basis(dim, dims, rows[6:])
    stored = sketch.encode(rows, basis)
    generator = np.random.default_rng(1)
    items = [*generator.standard_normal((5, dim)), np.zeros(dim), np.eye(dim)[dim // 2], *exact[[1, 2, 3, 9, 10]]]
    for item in items:
        _, bounds = scores_and_bounds(stored, sketch.query(item, basis), len(rows), fine=fine)
        assert (bounds >= exact @ item).all()


@pytest.mark.parametrize("dim", [16, 128, 256])
def test_a_power_of_two_is_turned_by_signs(dim):
    basis, other = sketch.make_basis(dim, dim), sketch.make_basis(dim, dim, seed=1)
    assert len(np.unique(np.abs(basis))) == 1
    np.testing.assert_allclose(basis.astype(np.float64) @ basis.T, np.eye(dim), atol=2e-6)
    # Hadamard's matrix is symmetric, so the signs of the columns are those of the first row.
    unsigned = basis * np.sign(basis[0])
    np.testing.assert_array_equal(unsigned, unsigned.T)
    assert (np.sign(basis[0]) != np.sign(other[0])).any()


def test_bounds_are_near():
    rows, exact = stored_rows(333, 128)
    basis = sketch.make_basis(128, 128)
    stored = sketch.encode(rows, basis)
    item = np.random.default_rng(2).standard_normal(128)
    sizes = np.linalg.norm(exact, axis=1) * np.linalg.norm(item)
    for fine, most in ((False, 0.45), (True, 0.13)):
        _, bounds = scores_and_bounds(stored, sketch.query(item, basis), len(rows), fine=fine)
        assert np.median(((bounds - exact @ item) / np.maximum(sizes, 1e-300))[6:]) < most


@pytest.mark.parametrize(("dim", "dims"), SHAPES)
def test_tensors_are_as_described(dim, dims):
    rows, _ = stored_rows(45, dim)
    basis = sketch.make_basis(dim, dims, rows[6:])
    stored = {**sketch.encode(rows, basis), "sketch_basis": basis}
    for name, (dtype, shape) in sketch.tensors(45, dim, dims).items():
        assert stored[name].shape == shape
        assert stored[name].dtype == {"U8": np.uint8, "U16": np.uint16, "F32": np.float32}[dtype]
    assert not stored["sketch_coarse_factors"][-1, :, 45 % 16 :].any()


def test_bits_lie_where_the_format_says():
    rows, _ = stored_rows(45, 128)
    stored = sketch.encode(rows, sketch.make_basis(128, 128))
    codes = sketch.codes(stored, fine=False)
    for row, dimension in ((0, 0), (17, 5), (31, 127), (44, 66)):
        byte = stored["sketch_coarse"][row // 16, dimension // 16, 4 * (row % 16) + dimension % 4]
        assert 2 * (int(byte) >> (2 * (dimension % 16 // 4)) & 3) - 3 == codes[row, dimension]


@pytest.mark.parametrize(("fine", "limit"), [(False, sketch.COARSE_CODE_LIMIT), (True, sketch.FULL_CODE_LIMIT)])
def test_codes_are_short(fine, limit):
    rows, _ = stored_rows(333, 64)
    # Turned by the unit matrix, rows of one magnitude and of one entry stay what they are.
    for basis in (np.eye(64, dtype=np.float32), sketch.make_basis(64, 64)):
        codes = sketch.codes(sketch.encode(rows, basis), fine=fine)[: len(rows)]
        assert ((codes**2).sum(1) <= limit * 64).all()


def test_estimates_find_nearly_all_of_the_best():
    rows = np.random.default_rng(3).standard_normal((20_000, 64)).astype(np.float32)
    basis = sketch.make_basis(64, 64)
    stored = sketch.encode(rows, basis)
    found = left = 0
    for item in np.random.default_rng(4).standard_normal((10, 64)):
        scores = rows.astype(np.float64) @ item
        threshold = np.sort(scores)[-100]
        prepared = sketch.query(item, basis).statistical(64, 3.0, fine=False)
        _, bounds = scores_and_bounds(stored, prepared, len(rows), fine=False)
        found += int((bounds >= threshold)[scores >= threshold].sum())
        left += int((bounds >= threshold).sum())
    assert found >= 998
    assert left <= 10 * 20_000 * 0.1


def test_fewer_dimensions_are_chosen_when_they_suffice():
    generator = np.random.default_rng(5)
    rows = generator.standard_normal((4096, 64)).astype(np.float32)
    assert sketch.choose_dims(rows, generator.standard_normal((200, 64)).astype(np.float32)) == 64
    decay = np.exp(-np.arange(64) / 6).astype(np.float32)
    items = generator.standard_normal((200, 64)).astype(np.float32) * decay
    assert sketch.choose_dims(rows * decay, items) == 32


def test_known_items_shape_the_sketch_and_no_exact_answer(tmp_path):
    generator = np.random.default_rng(6)
    # Item vectors lie in a quarter of the directions, rows in all of them.
    rows = generator.standard_normal((6000, 64)).astype(np.float32)
    items = generator.standard_normal((200, 16)) @ generator.standard_normal((16, 64)) / 4
    blind = UserTable.create(tmp_path / "blind", rows, sketch="yes", cluster="no")
    known = UserTable.create(tmp_path / "known", rows, sketch="yes", cluster="no", items=items)
    dims = [json.loads((tmp_path / name / "table.json").read_text())["sketch_dims"] for name in ("blind", "known")]
    assert dims == [64, 32]
    asked = np.concatenate([items[:3], generator.standard_normal((3, 64))]).astype(np.float32)
    for item in asked:
        answers = [table.topk(item, 50, log_probs="none") for table in (blind, known)]
        np.testing.assert_array_equal(answers[0].user_ids, answers[1].user_ids)
        np.testing.assert_array_equal(answers[0].scores, answers[1].scores)


@pytest.mark.parametrize("items", [np.zeros((3, 63)), np.zeros((0, 64)), np.zeros(64), np.full((2, 64), np.nan)])
def test_unfit_items_are_refused(tmp_path, items):
    with pytest.raises(UsageError, match="items"):
        UserTable.create(tmp_path / "t", np.ones((10, 64), np.float32), items=items)
