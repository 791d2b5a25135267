"""Top-100 and logsumexp as one writes them in torch."""

from __future__ import annotations

import torch

from benchmarks.gpu.definition import CHUNK_ROWS, LARGEST


def torch_fp16(rows: torch.Tensor, z: torch.Tensor, blocks: int) -> torch.Tensor:
    """Top-100 and logsumexp by chunks in fp16, as one writes it in torch."""
    parts, sums = [], []
    for _ in range(blocks):
        for first in range(0, len(rows), CHUNK_ROWS):
            scores = (z.half() @ rows[first : first + CHUNK_ROWS].t()).float()
            parts.append(torch.topk(scores, 100))
            sums.append(torch.logsumexp(scores, 1))
    torch.logsumexp(torch.stack(sums), 0)
    return torch.topk(torch.cat([part.values for part in parts], 1), 100).indices.cpu()


def torch_int8(codes: torch.Tensor, scales: torch.Tensor, z: torch.Tensor, blocks: int) -> torch.Tensor:
    """The same exactness as ours: both limbs by 8-bit products, then float64 scores, by chunks."""
    scale = z.abs().amax(1, keepdim=True).double() / LARGEST
    whole = torch.round(z.double() / scale)
    high = torch.floor((whole + 64) / 128)
    limbs = torch.cat([high, whole - 128 * high]).to(torch.int8)
    padded = torch.zeros((max(32, -(-len(limbs) // 8) * 8), limbs.shape[1]), dtype=torch.int8, device=z.device)
    padded[: len(limbs)] = limbs
    parts, sums = [], []
    for _ in range(blocks):
        for first in range(0, len(codes), CHUNK_ROWS):
            products = torch._int_mm(padded, codes[first : first + CHUNK_ROWS].t())[: len(limbs)].double()
            row_scales = scales[first : first + CHUNK_ROWS].double()
            scores = ((128 * products[: len(z)] + products[len(z) :]) * (row_scales * scale)).float()
            parts.append(torch.topk(scores, 100))
            sums.append(torch.logsumexp(scores, 1))
    torch.logsumexp(torch.stack(sums), 0)
    return torch.topk(torch.cat([part.values for part in parts], 1), 100).indices.cpu()
