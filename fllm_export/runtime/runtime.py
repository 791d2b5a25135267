"""The runtime: item texts in, the top-K users out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import UserFilter
from fllm_export.engines.names import LogProbs, Mode
from fllm_export.engines.registry import NativeOptions, engine_name
from fllm_export.environment import chosen_encoder, thread_count
from fllm_export.errors import BundleError
from fllm_export.manifest import Manifest
from fllm_export.runtime.encoder import Encoder
from fllm_export.runtime.item_model import default_encoder
from fllm_export.runtime.topk import TopK
from fllm_export.runtime.user_table import UserTable


class Runtime:
    """An opened bundle. Safe to use from many threads at once.

    Attributes:
        manifest: the bundle's manifest.
        users: its user table, for callers that have item vectors already.
    """

    def __init__(self, manifest: Manifest, encoder: Encoder, users: UserTable) -> None:
        self.manifest = manifest
        self.users = users
        self._encoder = encoder

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        *,
        engine: str | None = None,
        encoder: str | None = None,
        threads: int | None = None,
        **native: Unpack[NativeOptions],
    ) -> Runtime:
        """Open a bundle; the user table is mapped in place, or brought to the GPU.

        Args:
            bundle: the bundle's directory.
            engine: ``native``, ``cuda``, ``tensorrt``, ``onnxruntime`` or ``numpy``; when not given, ``FLLM_ENGINE`` or
                else ``native``. Another engine than the one asked for is never chosen.
            encoder: what encodes texts: ``cpu`` and ``cuda`` are ONNX Runtime's, ``tensorrt`` a plan of the bundle
                (``tensorrt-fp16``, ``-bf16``, ``-fp8``: the one of that precision). When not given, ``FLLM_ENCODER``
                or else ``tensorrt`` beside the engine of that name and ``cpu`` beside all others.
            threads: threads inside one call; when not given, ``FLLM_NUM_THREADS`` or else every CPU.
            **native: ``resident``, ``pin_threads`` and ``batch_window_us``, as :class:`NativeOptions` describes them.

        Raises:
            BundleError: the bundle is incomplete, damaged or of a newer format.
            HardwareError: the engine or the encoder cannot run here.
            UsageError: there is none of that name.
        """
        directory = Path(bundle)
        manifest = Manifest.load(directory)
        count = thread_count(threads)
        chosen = engine_name(engine)
        where = encoder or chosen_encoder() or default_encoder(chosen)
        # First, since the table takes what memory of the GPU it finds.
        model = Encoder(directory, manifest.prompt, manifest.dim, count, where)
        users = UserTable.open(directory / "users", engine=chosen, threads=count, head=directory / "head", **native)
        if users.dim != manifest.dim:
            raise BundleError(
                f"{directory / 'users'} holds rows of {users.dim} numbers",
                expected=f"{manifest.dim}, as the manifest says",
            )
        return cls(manifest, model, users)

    def reopen(self) -> None:
        """Open the bundle's user table again; searches under way end on the old one.

        The encoder stays. A table of another model does not belong to it, even where the dimensions agree: publish a
        bundle of another model beside this one, and open that.

        Raises:
            BundleError: the new table is damaged; the old one stays in use.
            UsageError: its rows have another dimension; the old one stays in use.
        """
        self.users.reopen()

    @property
    def encoder(self) -> str:
        """What encodes texts."""
        return self._encoder.where

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the item vectors z of ``texts``, float32 [B, d].

        Raises:
            UsageError: ``texts`` is not a list of at least one string.
        """
        return self._encoder.encode(self._encoder.tokenize(texts))

    def topk(
        self,
        texts: Sequence[str],
        k: int = 100,
        *,
        budget_ms: float | None = None,
        mode: Mode = "topk",
        seed: int | Sequence[int] = 0,
        exact: bool = True,
        log_probs: LogProbs | None = None,
        filter: UserFilter | None = None,
    ) -> TopK:
        """Return the best ``k`` users of each item; the arguments are those of :meth:`UserTable.topk`.

        The budget is for the whole call. Tokenising and encoding are never cut short: what they leave of it is
        the scan's, which scores one tile at least.

        Raises:
            UsageError: an argument is unfit.
        """
        began = time.monotonic()
        request = self.users.request(len(texts), k, budget_ms, mode, seed, began, exact, log_probs, filter)
        ids = self._encoder.tokenize(texts)
        tokenised = time.monotonic()
        z = self._encoder.encode(ids)
        encoded = time.monotonic()
        answer = self.users.answer(z, request)
        timings = {"tokenise": (tokenised - began) * 1e3, "encode": (encoded - tokenised) * 1e3}
        return replace(answer, timings_ms={**timings, **answer.timings_ms})
