from __future__ import annotations

import numpy as np
import pytest

from fllm_export.table import bit_planes

SHAPES = [(1, 1), (16, 16), (15, 17), (45, 100), (33, 256)]


def two_bits(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, shape, np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_lie_where_the_format_says(shape: tuple[int, int]) -> None:
    bits = two_bits(shape)
    blocks = bit_planes.into_blocks(bit_planes.pack(bits))
    groups = -(-shape[1] // 16)
    assert blocks.shape == (-(-shape[0] // 16), groups, 64)
    expected = np.zeros_like(blocks)
    for row, dim in np.ndindex(shape):
        expected[row // 16, dim // 16, 4 * (row % 16) + dim % 4] |= bits[row, dim] << (2 * (dim % 16 // 4))
    np.testing.assert_array_equal(blocks, expected)


@pytest.mark.parametrize("shape", [*SHAPES, (3, 32), (3, 33), (3, 48)])
def test_single_bits_lie_where_the_format_says(shape: tuple[int, int]) -> None:
    bits = np.random.default_rng(0).integers(0, 2, shape, np.uint8)
    plane = bit_planes.pack_bits(bits)
    assert plane.shape == (shape[0], -(-shape[1] // 32), 4)
    expected = np.zeros_like(plane)
    for row, dim in np.ndindex(shape):
        expected[row, dim // 32, dim % 4] |= bits[row, dim] << (2 * (dim % 16 // 4) + dim // 16 % 2)
    np.testing.assert_array_equal(plane, expected)
    np.testing.assert_array_equal(bit_planes.unpack_bits(plane, shape[1]), bits)


@pytest.mark.parametrize("shape", SHAPES)
def test_planes_come_back_whole_and_row_by_row(shape: tuple[int, int]) -> None:
    rows, dim = shape
    planes = np.stack([bit_planes.pack(two_bits(shape)), bit_planes.pack(3 - two_bits(shape))], 1)
    blocks = bit_planes.into_blocks(planes)
    assert blocks.shape == (-(-rows // 16), 2, -(-dim // 16), 64)
    back = bit_planes.from_blocks(blocks)
    np.testing.assert_array_equal(back[:rows], planes)
    assert not back[rows:].any()
    np.testing.assert_array_equal(bit_planes.unpack(back[:rows, 0], dim), two_bits(shape))
    chosen = np.random.default_rng(1).integers(0, rows, 50)
    np.testing.assert_array_equal(bit_planes.gather(blocks, chosen), planes[chosen])
