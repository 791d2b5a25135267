"""The engine ``cuda`` on rows that lie in memory, through ctypes."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.codecs import Codec
from benchmarks.gpu.definition import CHUNK_ROWS


class Engine:
    """A table in GPU memory: ``blocks`` times the same rows, under ids that count up.

    Args:
        library: what :func:`benchmarks.gpu.compiled.compile_engine` built; ``FLLM_CUDA_LIBRARY`` names the driver.
        codec: of the rows.
        numbers: int8 or float8_e4m3fn [rows, dim], as :meth:`Codec.random` returns them.
        scales: float32 [rows], of either device.
        blocks: how often the rows are taken.
        gpu_bytes: of the GPU's memory at most; 0: what is free.
    """

    def __init__(
        self,
        library: Path,
        codec: Codec,
        numbers: torch.Tensor,
        scales: torch.Tensor,
        blocks: int = 1,
        gpu_bytes: int = 0,
    ) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.gpu_engine_open.restype = ctypes.c_void_p
        self._library.gpu_engine_streamed_bytes.restype = ctypes.c_uint64
        self._message = ctypes.create_string_buffer(512)
        self.rows, self.dim = len(numbers) * blocks, numbers.shape[1]
        ids = np.arange(self.rows, dtype=np.int64)
        parts = [codec.stored(part).cpu() for part in numbers.split(CHUNK_ROWS)]
        stored, row_scales = torch.cat(parts).numpy(), scales.cpu().numpy()
        handle = self._library.gpu_engine_open(
            stored.ctypes.data_as(ctypes.c_void_p),
            codec.name.encode(),
            *(array.ctypes.data_as(ctypes.c_void_p) for array in (row_scales, ids)),
            *(ctypes.c_uint64(number) for number in (len(numbers), blocks)),
            ctypes.c_uint32(self.dim),
            ctypes.c_uint64(gpu_bytes),
            self._message,
        )
        if handle is None:
            raise RuntimeError(self._message.value.decode())
        self._handle = ctypes.c_void_p(handle)

    @property
    def streamed_bytes(self) -> int:
        """Bytes that every pass copies from the host."""
        return int(self._library.gpu_engine_streamed_bytes(self._handle))

    def search(self, z: np.ndarray, k: int, *, log_probs: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ids int64 [B, k], scores float32 [B, k] and logsumexp float64 [B] for float32 z [B, dim]."""
        ids, scores = np.empty((len(z), k), np.int64), np.empty((len(z), k), np.float32)
        logsumexp = np.empty(len(z))
        failed = self._library.gpu_engine_search(
            self._handle,
            z.ctypes.data_as(ctypes.c_void_p),
            *(ctypes.c_uint64(number) for number in (len(z), k)),
            ctypes.c_int(log_probs),
            *(array.ctypes.data_as(ctypes.c_void_p) for array in (ids, scores, logsumexp)),
            self._message,
        )
        if failed:
            raise RuntimeError(self._message.value.decode())
        return ids, scores, logsumexp

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._library.gpu_engine_close(self._handle)
