"""The cheapest setting of an index that reaches a recall, for one item and for a batch apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from benchmarks.native.bench import one_item
from benchmarks.native.population import F32
from benchmarks.native.truth import I64, recall
from fllm_export.sweep.peers.base import Index, Setting

Mode = Literal["one", "many"]

_ONE_ITEM_CALLS = 8


@dataclass(frozen=True)
class Trial:
    """A setting, the recall it reaches over all items, and about how long it takes."""

    setting: Setting
    recall: float
    ms: dict[Mode, float]


def try_all(index: Index, settings: tuple[Setting, ...], z: F32, truth: I64) -> list[Trial]:
    """Search all items at every setting, together and some of them one by one."""
    k = truth.shape[1]
    index.search(z, k, settings[0])
    return [_try(index, setting, z, truth) for setting in settings]


def cheapest(trials: list[Trial], target: float, mode: Mode) -> Trial | None:
    """Return the quickest trial that reaches the target, or None."""
    reached = [trial for trial in trials if trial.recall >= target]
    return min(reached, key=lambda trial: trial.ms[mode], default=None)


def _try(index: Index, setting: Setting, z: F32, truth: I64) -> Trial:
    k = truth.shape[1]
    many, found = _timed(lambda: index.search(z, k, setting))
    one = [_timed(partial(index.search, one_item(z, turn), k, setting))[0] for turn in range(_ONE_ITEM_CALLS)]
    return Trial(setting, recall(found, truth), {"one": float(np.median(one)), "many": many})


def _timed(call: Callable[[], I64]) -> tuple[float, I64]:
    began = time.perf_counter()
    answer = call()
    return (time.perf_counter() - began) * 1e3, answer
