"""How far a kernel mapper is from float64 arithmetic when its products are rounded to fewer bits.

    python benchmarks/kernel_precision.py ../shared/data/citeulike-a [--encoder minilm] [--landmarks 1024 2048]
        [--gamma 2]

Landmarks are chosen among the vectors of items of the data set, as training chooses them. For 512 other items x the
item vector z = R exp(g (L x - 1)) is computed with the factors of both products rounded to a precision, and with
nothing but x rounded, as an encoder in that precision would do. Prints the relative error |z' - z| / |z|, the mean and
the largest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
from torch import nn

from fllm_export.checkpoint.mapper import Mapper
from fllm_export.checkpoint.model import ItemEncoder
from fllm_export.cli.output import columns
from fllm_export.evaluation.dataset import Dataset
from fllm_export.training.encoders import choose_encoder
from fllm_export.training.item_tokens import ItemTokens
from fllm_export.training.kernel import Kernel, unit
from fllm_export.training.landmarks import choose_landmarks
from fllm_export.training.lora import load_encoder

ASKED = 512
MAX_LENGTH = 128

Matrix = npt.NDArray[np.floating]
Rounding = Callable[[Matrix], Matrix]


def tf32(values: Matrix) -> Matrix:
    """Return the nearest numbers with 10 bits of mantissa and the exponents of float32."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


def stored(dtype: npt.DTypeLike) -> Rounding:
    """Return the rounding to a type of NumPy."""
    return lambda values: values.astype(dtype).astype(np.float64)


ROUNDINGS: dict[str, Rounding] = {"tf32": tf32, "fp16": stored(np.float16), "bf16": stored(ml_dtypes.bfloat16)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--landmarks", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--gamma", type=float, default=2.0)
    options = parser.parse_args()
    texts = list(Dataset.load(options.data).texts)
    chosen = np.random.default_rng(0).permutation(len(texts))[: max(options.landmarks) + ASKED]
    vectors = unit(encoded(options.encoder, [texts[item] for item in chosen]))
    lines = []
    for most in options.landmarks:
        rest = vectors[ASKED:]
        kernel = Kernel(rest[choose_landmarks(rest, most)], options.gamma)
        lines += [(str(len(kernel.landmarks)), *line) for line in study(kernel, vectors[:ASKED])]
    print(columns(("landmarks", "what is rounded", "mean", "largest"), lines))


def encoded(name: str, texts: list[str]) -> Matrix:
    """Return the pooled states of texts, float32 [n, h]."""
    choice = choose_encoder(name, Path("encoders"))
    encoder = ItemEncoder(load_encoder(choice.path)[0], choice.pooling, nn.Identity()).eval()
    states: Matrix = ItemTokens.of(texts, choice, MAX_LENGTH).encode(encoder, np.arange(len(texts))).numpy()
    return states


def study(kernel: Kernel, x: Matrix) -> list[tuple[str, str, str]]:
    """Return a line for each precision and each place where it rounds."""
    first, last = kernel.gamma * kernel.landmarks, kernel.factor()
    exact = np.exp(x @ first.T - kernel.gamma) @ last.T

    def line(name: str, z: npt.NDArray[np.floating]) -> tuple[str, str, str]:
        error = np.linalg.norm(z - exact, axis=1) / np.linalg.norm(exact, axis=1)
        return name, f"{error.mean():.1e}", f"{error.max():.1e}"

    m = len(last)
    weights = {"0.weight": first, "0.bias": np.full(m, -kernel.gamma), "2.weight": last, "2.bias": np.zeros(m)}
    lines = [line("float32 throughout", Mapper("kernel", weights).apply(x.astype(np.float32)))]
    for name, rounded in ROUNDINGS.items():
        features = np.exp(rounded(x) @ rounded(first).T - kernel.gamma)
        lines.append(line(f"{name}, both products", rounded(features) @ rounded(last).T))
        lines.append(line(f"{name}, x alone", np.exp(rounded(x) @ first.T - kernel.gamma) @ last.T))
    return lines


if __name__ == "__main__":
    main()
