"""An encoder of a Llama's shape with random weights, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch


class Shape(NamedTuple):
    """Sizes of a decoder."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    wide: int
    vocabulary: int


LLAMA_1B = Shape(2048, 16, 32, 8, 8192, 128256)
"""Llama-3.2-1B's."""

TINY = Shape(64, 1, 2, 1, 64, 100)


def llama_encoder(dim: int, shape: Shape, device: torch.device) -> Callable[[], np.ndarray]:
    """Return a call that encodes one text of 64 tokens to float32 [1, dim], replayed as one CUDA graph on GPUs."""
    hidden, layers, heads, key_heads, wide, vocabulary = shape
    tokens = 64

    def weight(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, device=device, dtype=torch.float16) * sizes[-1] ** -0.5

    head = hidden // heads
    blocks = [
        {
            "qkv": weight(hidden + 2 * key_heads * head, hidden),
            "out": weight(hidden, hidden),
            "gate_up": weight(2 * wide, hidden),
            "down": weight(hidden, wide),
        }
        for _ in range(layers)
    ]
    embeddings, mapper = weight(vocabulary, hidden), weight(dim, hidden)
    angles = torch.outer(torch.arange(tokens), 500000.0 ** (-torch.arange(0, head, 2) / head)).to(device)
    cos, sin = (torch.cat([f(angles)] * 2, 1).half() for f in (torch.cos, torch.sin))

    def rotated(x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, -1)
        return x * cos + torch.cat([-right, left], -1) * sin

    def forward(ids: torch.Tensor) -> torch.Tensor:
        x = embeddings[ids]
        for block in blocks:
            normal = torch.nn.functional.rms_norm(x, (hidden,))
            q, k, v = (normal @ block["qkv"].t()).split([hidden, key_heads * head, key_heads * head], -1)
            q, k, v = (part.view(tokens, -1, head).transpose(0, 1) for part in (q, k, v))
            k, v = (part.repeat_interleave(heads // key_heads, 0) for part in (rotated(k), v))
            mixed = torch.nn.functional.scaled_dot_product_attention(rotated(q)[None], k[None], v[None], is_causal=True)
            x = x + mixed[0].transpose(0, 1).reshape(tokens, hidden) @ block["out"].t()
            gate, up = (torch.nn.functional.rms_norm(x, (hidden,)) @ block["gate_up"].t()).chunk(2, -1)
            x = x + (torch.nn.functional.silu(gate) * up) @ block["down"].t()
        return (torch.nn.functional.rms_norm(x[-1:], (hidden,)) @ mapper.t()).float()

    ids = torch.randint(0, vocabulary, (tokens,), device=device)
    run = _captured(forward, ids) if device.type == "cuda" else lambda: _without_gradients(forward, ids)

    def encode() -> np.ndarray:
        ids.copy_(torch.randint(0, vocabulary, (tokens,)))
        return run().cpu().numpy()

    return encode


def _without_gradients(forward: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return forward(ids)


def _captured(forward: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return a call that replays the forward pass."""
    with torch.no_grad():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                forward(ids)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            z = forward(ids)

    def replay() -> torch.Tensor:
        graph.replay()
        return z

    return replay
