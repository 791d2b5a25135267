"""The codecs that are measured: random numbers of rows, and how a table stores them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

BLOCK_ROWS, GROUP_DIMS = 16, 16
"""Of the blocks that rows in planes of two bits are stored in."""


@dataclass(frozen=True)
class Codec:
    """A codec by its name in ``table.json``.

    Attributes:
        name: of the codec.
        bits: of one number.
        planes: of two bits; 0: a row's codes follow each other.
    """

    name: str
    bits: int
    planes: int = 0

    @property
    def largest(self) -> int:
        """The largest magnitude of a number."""
        return (1 << self.bits) - 1 if self.planes else 127

    def random(self, rows: int, dim: int, generator: torch.Generator) -> torch.Tensor:
        """Return numbers as the codec has them, int8 or float8_e4m3fn [rows, dim]."""
        if self.planes:
            return 2 * self._integers(0, self.largest + 1, rows, dim, generator) - self.largest
        dtype = torch.float8_e4m3fn if self.name == "fp8" else torch.int8
        return self._integers(-127, 128, rows, dim, generator).to(dtype)

    def stored(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the codes of numbers [rows, dim] as bytes, uint8 in one dimension."""
        if not self.planes:
            return numbers.view(torch.uint8).flatten()
        rows, dim = numbers.shape
        groups = -(-dim // GROUP_DIMS)
        levels = torch.zeros((-(-rows // BLOCK_ROWS) * BLOCK_ROWS, groups * GROUP_DIMS), dtype=torch.uint8)
        levels = levels.to(numbers.device)
        levels[:rows, :dim] = ((numbers + self.largest) // 2).to(torch.uint8)
        planes = [self._plane(levels >> shift & 3, groups) for shift in range(2 * self.planes - 2, -1, -2)]
        return torch.stack(planes, 1).flatten()

    @staticmethod
    def _integers(low: int, high: int, rows: int, dim: int, generator: torch.Generator) -> torch.Tensor:
        shape, device = (rows, dim), generator.device
        return torch.randint(low, high, shape, dtype=torch.int8, device=device, generator=generator)

    @staticmethod
    def _plane(bits: torch.Tensor, groups: int) -> torch.Tensor:
        """Return [blocks, groups, 64] of two-bit numbers: byte j of a row's word has dimension 4 s + j at bits 2 s."""
        lanes = bits.view(-1, BLOCK_ROWS, groups, 4, 4)
        words = lanes[:, :, :, 0]
        for s in (1, 2, 3):
            words = words | lanes[:, :, :, s] << 2 * s
        return words.transpose(1, 2).flatten(2)


CODECS = {
    codec.name: codec for codec in (Codec("int8", 8), Codec("fp8", 8), Codec("int4row", 4, 2), Codec("int2", 2, 1))
}
