"""Who is quickest at the same recall of the exact float32 ranking, each library at its cheapest setting."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.native import machine
from benchmarks.native.bench import Bench, one_item, shape
from benchmarks.native.contenders.others import FAISS, SCANN, USEARCH
from benchmarks.native.contenders.own import own_contenders
from benchmarks.native.contenders.with_numkong import NUMKONG
from benchmarks.native.population import F32, Population
from benchmarks.native.timing import paired
from benchmarks.native.truth import I64, exact_top
from benchmarks.native.tuning import Mode, Trial, cheapest, try_all
from fllm_export.sweep.peers.base import Contender, Index

CASE = "recall"
TARGETS = (0.99, 0.999)
OTHERS: tuple[Contender, ...] = (*FAISS, *USEARCH, *NUMKONG, *SCANN)

_MODES: tuple[Mode, ...] = ("one", "many")
_PAIR_SECONDS = 15.0
_REPEATS_MIN = 3


def equal_recall(bench: Bench, population: Population, items: int, wanted: Sequence[str]) -> None:
    """Time every contender whose name holds one of ``wanted`` (all when empty) beside the quickest of our own."""
    bench.note(f"{CASE}: {population.name}, the float32 ranking")
    rows, z = population.all_rows(), population.items(items)
    contest = Contest(bench, population, rows, z, exact_top(population.chunks(), z, bench.k))
    for own in own_contenders(bench, population):
        contest.enter(own)
    for contender in OTHERS:
        if not wanted or any(part.lower() in contender.name.lower() for part in wanted):
            contest.challenge(contender)
            gc.collect()


@dataclass(frozen=True)
class Entry:
    """A contender that was built and tried."""

    name: str
    index: Index
    trials: list[Trial]


@dataclass
class Contest:
    """All contenders on one population.

    Attributes:
        bench: the run.
        population: whose rows they index.
        rows: the rows.
        z: the items, by which settings are chosen and times are taken.
        truth: their float32 ranking.
        own: our own entries.
    """

    bench: Bench
    population: Population
    rows: F32
    z: F32
    truth: I64
    own: list[Entry] = field(default_factory=list)

    def enter(self, contender: Contender) -> None:
        """Take up one of our own tables."""
        entry = self._build(contender)
        if entry is not None:
            self.own.append(entry)

    def challenge(self, contender: Contender) -> None:
        """Time a contender at each recall beside the quickest of our own that reaches it too."""
        entry = self._build(contender)
        if entry is None:
            return
        for mode in _MODES:
            done: dict[tuple[int, int], dict[str, Any]] = {}
            for target in TARGETS:
                self._duel(entry, mode, target, done)

    def _build(self, contender: Contender) -> Entry | None:
        """Build and try all settings; record what that took and what it reached."""
        self.bench.note(f"{CASE}: {contender.name}")
        before, began = machine.settled_private_bytes(), time.monotonic()
        try:
            index = contender.build(self.rows, self.bench.threads)
        except ImportError as error:
            self.bench.record(CASE, f"{contender.name} is not here", reason=str(error))
            return None
        seconds = round(time.monotonic() - began, 2)
        memory = machine.settled_private_bytes() - before
        build = {"build_s": seconds, "memory_bytes": memory, "file_bytes": index.file_bytes}
        trials = try_all(index, contender.settings, self.z, self.truth)
        about = {**self._about(len(self.z)), **build, "trials": [_trial_json(trial) for trial in trials]}
        self.bench.record(CASE, f"{contender.name}: trials", **about)
        return Entry(contender.name, index, trials)

    def _duel(self, entry: Entry, mode: Mode, target: float, done: dict[tuple[int, int], dict[str, Any]]) -> None:
        """Time the cheapest settings that reach the target; ``done`` keeps what another target has timed already."""
        items = 1 if mode == "one" else len(self.z)
        theirs = cheapest(entry.trials, target, mode)
        if theirs is None:
            best = round(max(trial.recall for trial in entry.trials), 5)
            self.bench.record(CASE, f"{entry.name} reaches less", **self._about(items), target=target, recall=best)
            return
        mine = [(own, trial) for own in self.own if (trial := cheapest(own.trials, target, mode)) is not None]
        if not mine:
            self.bench.record(CASE, "our own tables reach less", **self._about(items), target=target)
            return
        own, ours = min(mine, key=lambda pair: pair[1].ms[mode])
        key = (id(ours), id(theirs))
        if key not in done:
            done[key] = {"times": self._race(own, ours, entry, theirs, mode)}
        times = done[key]["times"]
        against = {"against_setting": dict(theirs.setting), "against_recall": round(theirs.recall, 5)}
        about = {**self._about(items), "target": target, "recall": round(ours.recall, 5), **against}
        self.bench.compare(CASE, own.name, times["ours"], {entry.name: times["theirs"]}, **about)

    def _race(self, own: Entry, ours: Trial, entry: Entry, theirs: Trial, mode: Mode) -> dict[str, Any]:
        k = self.bench.k
        pair_seconds = (ours.ms[mode] + theirs.ms[mode]) / 1e3
        repeats = min(self.bench.repeats, max(_REPEATS_MIN, int(_PAIR_SECONDS / pair_seconds)))

        def items(turn: int) -> F32:
            return one_item(self.z, turn) if mode == "one" else self.z

        return paired(
            {
                "ours": lambda turn: own.index.search(items(turn), k, ours.setting),
                "theirs": lambda turn: entry.index.search(items(turn), k, theirs.setting),
            },
            repeats,
        )

    def _about(self, items: int) -> dict[str, Any]:
        about = shape(self.population, items)
        del about["quant"]
        return about


def _trial_json(trial: Trial) -> dict[str, Any]:
    times = {f"{mode}_ms": round(ms, 3) for mode, ms in trial.ms.items()}
    return {"setting": dict(trial.setting), "recall": round(trial.recall, 5), **times}
