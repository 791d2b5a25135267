"""libfllm writes the bytes that NumPy defines: for every codec and option, level of instructions and chunking."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fllm_export import UserTable
from fllm_export.table import clusters, native, sketch, tile_bounds
from fllm_export.table.codec_names import CODEC_NAMES, UNSKETCHED
from fllm_export.table.codecs import codec

pytestmark = pytest.mark.skipif(native._core is None, reason="the compiled module is not installed")

ROWS = st.integers(1, 90).flatmap(
    lambda dim: arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.just(dim)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from([0.0, -0.0, 1e-45, 3e-39, 3.4e38, -1.0]),
    )
)


@contextmanager
def numpy_alone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_core", None)
        yield


def hard_rows(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Rows of many magnitudes, of zeros, of one number, of one magnitude, and at the ends of float32's range."""
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((count, dim)) * np.exp(3 * generator.standard_normal((count, 1)))
    kinds = [0 * rows[0], np.eye(dim)[dim // 2] * 1e5, np.sign(rows[1]), rows[2] * 1e-30, rows[3] * 1e25, rows[4]]
    kinds += [np.full(dim, 1e-41), np.full(dim, 3.4e38), np.where(np.arange(dim) % 2, 1e-44, -2e-38)]
    rows[: len(kinds)] = kinds[:count]
    return rows.astype(np.float32)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("quant", CODEC_NAMES)
@settings(max_examples=40, deadline=None)
@example(rows=np.array([[5e9] + 40 * [-1.2e-38]], np.float32))  # a group of zeros with negative codes
@given(rows=ROWS)
def test_rows_are_encoded_and_decoded_alike(quant: str, rows: np.ndarray) -> None:
    stored = codec(quant).encode(rows)
    decoded = codec(quant).decode(stored, rows.shape[1])
    with numpy_alone():
        assert_same(stored, codec(quant).encode(rows))
        assert decoded.tobytes() == codec(quant).decode(stored, rows.shape[1]).tobytes()


@pytest.mark.parametrize("quant", CODEC_NAMES)
def test_ties_and_hard_rows_are_encoded_alike(quant: str) -> None:
    generator = np.random.default_rng(1)
    ties = np.round(generator.uniform(-127, 127, (500, 64)) * 16) / 16
    ties[:, 0] = 127
    for rows in (ties.astype(np.float32), hard_rows(300, 77), hard_rows(40, 1), hard_rows(50, 300)):
        stored = codec(quant).encode(rows)
        with numpy_alone():
            assert_same(stored, codec(quant).encode(rows))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(rows=np.array([[-0.0], [0.0]], np.float32), part=1, tile=5)  # as a bias: the larger of two equal zeros
@given(rows=ROWS, part=st.integers(1, 3), tile=st.sampled_from([1, 5, 16]))
def test_sketch_and_bounds_are_made_alike(rows: np.ndarray, part: int, tile: int) -> None:
    dim = rows.shape[1]
    basis = sketch.make_basis(dim, max(16, dim * part // 48 * 16), rows.clip(-1e9, 1e9))
    made = sketch.encode(rows, basis), tile_bounds.describe_tiles(rows, rows[:, 0], tile)
    with numpy_alone():
        assert_same(made[0], sketch.encode(rows, basis))
        for found, expected in zip(made[1], tile_bounds.describe_tiles(rows, rows[:, 0], tile), strict=True):
            assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dim", [16, 128, 256, 2048])
def test_rows_are_turned_alike_by_signs_and_by_a_basis_that_is_nearly_so(dim: int) -> None:
    rows = hard_rows(40, dim)
    by_signs = sketch.make_basis(dim, dim)
    other_sign, other_order = by_signs.copy(), by_signs[::-1]
    other_sign[dim // 2, dim // 3] *= -1
    made = []
    for basis in (by_signs, other_sign, other_order):
        made.append(sketch.encode(rows, basis))
        with numpy_alone():
            assert_same(made[-1], sketch.encode(rows, basis))
    codes = [tensors["sketch_coarse"].tobytes() + tensors["sketch_fine"].tobytes() for tensors in made]
    assert len(set(codes)) == 3


@pytest.mark.parametrize("dim", [3, 32, 100, 257])
@pytest.mark.parametrize("kind", ["hard", "zeros", "ties", "gauss"])
def test_rows_are_ordered_alike(dim: int, kind: str) -> None:
    rows = np.random.default_rng(2).standard_normal((9_000, dim)).astype(np.float32)
    rows = {"hard": hard_rows(9_000, dim), "zeros": 0 * rows, "ties": np.sign(rows), "gauss": rows}[kind]
    directions = clusters.principal_directions(rows[9:1000])
    points = clusters.features(rows, directions)
    order = clusters.clustered(points, 64)
    with numpy_alone():
        assert points.tobytes() == clusters.features(rows, directions).tobytes()
        np.testing.assert_array_equal(order, clusters.clustered(points, 64))


def write(directory: Path, quant: str, chunk: int) -> dict[str, bytes]:
    """Write a clustered table of several shards, with a sketch where it may have one, and return its files."""
    rows, bias = hard_rows(2_500, 72), np.random.default_rng(3).standard_normal(2_500).astype(np.float32)
    ids = np.random.default_rng(4).permutation(1 << 20)[:2_500]
    options = {"sketch": "auto" if quant in UNSKETCHED else "yes", "cluster": "yes", "shard_bytes": 24_000}
    parts = (rows[at : at + chunk] for at in range(0, 2_500, chunk))
    UserTable.create(directory, parts, ids, bias=bias, quant=quant, **options)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("quant", CODEC_NAMES)
def test_tables_are_the_same_files_however_they_are_written(tmp_path: Path, quant: str) -> None:
    whole = write(tmp_path / "whole", quant, 2_500)
    assert len(whole) > 3
    assert write(tmp_path / "cut", quant, 333) == whole
    with numpy_alone():
        assert write(tmp_path / "numpy", quant, 1_111) == whole


LEVEL = """
import hashlib, sys
from pathlib import Path
sys.path.append(sys.argv[2])  # a safe path does not hold the working directory
from test_native import CODEC_NAMES, write
for quant in CODEC_NAMES:
    files = write(Path(sys.argv[1]) / quant, quant, 1_000)
    print(hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest())
"""


def test_every_level_and_number_of_threads_writes_the_same_bytes(tmp_path: Path) -> None:
    found = set()
    for number, level in enumerate([*native._core.cpu_levels(), ""]):
        environment = {**os.environ, "FLLM_ISA": level, "FLLM_NUM_THREADS": "3" if level else "1"}
        command = [sys.executable, "-c", LEVEL, str(tmp_path / str(number)), str(Path(__file__).parent)]
        found.add(subprocess.check_output(command, env=environment, text=True))
    assert len(found) == 1


def test_an_unknown_level_is_an_error_of_the_project() -> None:
    code = "import numpy as np; from fllm_export.table.codecs import codec; codec('int8').encode(np.ones((1, 1), 'f4'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "FLLM_ISA": "abacus"}, capture_output=True, text=True
    )
    assert "HardwareError: FLLM_ISA is 'abacus'" in done.stderr


def test_the_first_row_that_is_not_finite_is_found() -> None:
    rows = np.ones((20_000, 30), np.float32)
    assert native.first_not_finite(rows) == len(rows)
    rows[[19_999, 12_345, 12_346], 29] = np.nan, np.inf, -np.inf
    assert native.first_not_finite(rows) == 12_345
