"""The runtime: item texts in, the top-K users out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.engines.base import UserFilter
from fllm_export.engines.names import ENCODERS, LogProbs, Mode
from fllm_export.engines.registry import NativeOptions, checked_options, engine_name
from fllm_export.environment import thread_count
from fllm_export.item_texts import as_texts
from fllm_export.manifest import Manifest
from fllm_export.operating_point import OperatingPoint
from fllm_export.runtime.item_model import encoder_name
from fllm_export.runtime.opened_bundle import BundleOptions, OpenedBundle
from fllm_export.runtime.topk import TopK
from fllm_export.runtime.user_table import UserTable


class Runtime:
    """An opened bundle. Safe to use from many threads at once."""

    def __init__(self, opened: OpenedBundle, options: BundleOptions) -> None:
        # Encoder and table change together, in one assignment, so that no call uses the one with the other's successor.
        self._opened = opened
        self._options = options

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        *,
        engine: str | None = None,
        encoder: str | None = None,
        threads: int | None = None,
        operating_point: OperatingPoint | str | Path | None = None,
        **native: Unpack[NativeOptions],
    ) -> Runtime:
        """Open a bundle; the user table is mapped in place, or brought to the GPU.

        Args:
            bundle: the bundle's directory.
            engine: ``native``, ``cuda``, ``tensorrt``, ``onnxruntime`` or ``numpy``; when not given, ``FLLM_ENGINE`` or
                else ``native``. There is no fallback to another engine.
            encoder: what encodes texts: ``cpu``, ``cpu-fp32`` and ``cuda`` are ONNX Runtime's, ``tensorrt`` a plan of
                the bundle (``tensorrt-fp16``, ``-bf16``, ``-fp8``: the one of that precision). ``cpu`` runs the encoder
                that the bundle was built with for CPUs, ``cpu-fp32`` the float32 one. When not given, ``FLLM_ENCODER``
                or else ``tensorrt`` with the engine of that name and ``cpu`` with all others.
            threads: threads inside one call; when not given, ``FLLM_NUM_THREADS`` or else every CPU.
            operating_point: what a sweep picked, or its file, as :meth:`UserTable.open` takes it.
            **native: ``resident``, ``pin_threads`` and ``batch_window_us``, as :class:`NativeOptions` describes them.

        Raises:
            BundleError: the bundle is incomplete, damaged or of a newer format.
            HardwareError: the engine or the encoder cannot run here.
            UsageError: there is no engine or encoder of that name, or the operating point is that of another kind of
                table.
        """
        point = None if operating_point is None else OperatingPoint.of(operating_point)
        if point is not None:
            engine = point.engine if engine is None else engine
            threads = point.threads if threads is None else threads
        chosen = engine_name(engine)
        options = BundleOptions(
            arguments.path(bundle, "bundle"),
            chosen,
            arguments.one_of(encoder_name(encoder, chosen), "encoder", ENCODERS),
            thread_count(threads),
            checked_options(native),
            point,
        )
        return _opened(options)

    def __reduce__(self) -> tuple[Callable[..., Runtime], tuple[BundleOptions]]:
        """Pickle as path and options: who unpickles it opens what lies there then."""
        return _opened, (replace(self._options, directory=self._options.directory.absolute()),)

    def reopen(self) -> None:
        """Open again what is at the bundle's path now. Running calls end on what they began with.

        If it is the same bundle, only the user table is opened again. If it is another bundle (a symbolic link was
        moved, or a directory was exchanged), encoder and table change together. On failure nothing changes.

        Raises:
            BundleError: what lies there is incomplete, damaged or of a newer format.
            HardwareError: the engine or the encoder cannot run here.
            UsageError: the table's rows have another dimension than the encoder's item vectors.
        """
        self._opened = self._options.open(self._opened)

    def successor(self, bundle: str | Path | None = None) -> Runtime:
        """Return another runtime with the same options for what is at the path now, or at another path.

        This runtime does not change, so a server can try the successor before it takes its place. The two share the
        encoder if the bundles have the same one.

        Args:
            bundle: the directory of the other bundle; when not given, that of this runtime.

        Raises:
            BundleError: what lies there is incomplete, damaged or of a newer format.
            HardwareError: the engine or the encoder cannot run here.
        """
        directory = self._options.directory if bundle is None else arguments.path(bundle, "bundle")
        options = replace(self._options, directory=directory)
        return Runtime(options.open_beside(self._opened), options)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._opened.manifest

    @property
    def users(self) -> UserTable:
        """The user table, for callers that have item vectors already, and for filters."""
        return self._opened.users

    @property
    def encoder(self) -> str:
        """What encodes texts."""
        return self._opened.encoder.where

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the item vectors z of ``texts``, float32 [B, d].

        Raises:
            UsageError: ``texts`` is not a list of at least one string.
        """
        encoder = self._opened.encoder
        return encoder.encode(encoder.tokenize(texts))

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids, prompt and special tokens included, as :meth:`encode_tokens` takes them.

        Raises:
            UsageError: ``texts`` is not a list of at least one string.
        """
        return self._opened.encoder.tokenize(texts)

    def encode_tokens(self, items: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Return the item vectors z of token ids per item, float32 [B, d].

        Raises:
            UsageError: an item is not a list of token ids of this bundle's tokenizer, or is longer than an item's
                prompt can be.
        """
        encoder = self._opened.encoder
        return encoder.encode(encoder.checked(items))

    def topk(
        self,
        texts: Sequence[str],
        k: int = 100,
        *,
        budget_ms: float | None = None,
        mode: Mode = "topk",
        seed: int | Sequence[int] = 0,
        exact: bool | None = None,
        log_probs: LogProbs | None = None,
        filter: UserFilter | None = None,
        refine: int | None = None,
    ) -> TopK:
        """Return the best ``k`` users of each item; the arguments are those of :meth:`UserTable.topk`.

        The budget is for the whole call. Tokenising and encoding are never cut short. The scan gets the time that is
        left, and scores at least one tile.

        Raises:
            UsageError: an argument is invalid.
        """
        began = time.monotonic()
        opened = self._opened
        items = as_texts(texts, "texts")
        request = opened.users.request(len(items), k, budget_ms, mode, seed, began, exact, log_probs, filter, refine)
        ids = opened.encoder.tokenize(items)
        tokenised = time.monotonic()
        z = opened.encoder.encode(ids)
        encoded = time.monotonic()
        answer = opened.users.answer(z, request)
        timings = {"tokenise": (tokenised - began) * 1e3, "encode": (encoded - tokenised) * 1e3}
        return replace(answer, timings_ms={**timings, **answer.timings_ms})


def _opened(options: BundleOptions) -> Runtime:
    return Runtime(options.open(), options)
