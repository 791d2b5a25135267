"""What is measured: wordings on cold_val, rankings on cold_test, and both times of the same items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.judgment.journal import Journal, Record
from benchmarks.judgment.judge import Judge
from benchmarks.judgment.pairs import FILTER, Judged, drawn_items
from benchmarks.judgment.stopwatch import Taken
from benchmarks.judgment.towers import Towers
from benchmarks.judgment.wording import Wording
from fllm_export.evaluation.ranker import CheckpointRanker
from fllm_export.progress import Progress
from fllm_export.sweep.machine import load

K = 20
_REPEATS = 5


@dataclass(frozen=True)
class Study:
    """What measurements share.

    Attributes:
        towers: the filter.
        judge: the decoder.
        precision: the judge's.
        models: the text-to-distribution models by name.
        journal: where measurements are kept.
        progress: counts items.
    """

    towers: Towers
    judge: Judge
    precision: str
    models: dict[str, CheckpointRanker]
    journal: Journal
    progress: Progress

    def rank(
        self, split: str, count: int, wordings: Iterable[Wording], history: int, candidates: int, others: int
    ) -> list[Record]:
        """Judge the users of items, and return a record per item and wording."""
        found = []
        cases = [(wording, item) for wording in wordings for item in drawn_items(self.towers.dataset, split, count)]
        for number, (wording, item) in enumerate(cases):
            key = self._key("rank", split, item, wording, history)
            key |= {"candidates": candidates, "others": others}
            record = self.journal.find(key)
            if record is None:
                judged = Judged.of(self.towers, split, item, candidates, others)
                p = self.judge.probabilities(self._prompts(judged, wording, history))
                record = {**key, "users": judged.users.tolist(), "sources": judged.sources}
                record |= {"right": judged.right.tolist(), "yes": [round(float(each), 6) for each in p]}
                self.journal.add(record)
            found.append(record)
            self.progress("judging items", number + 1, len(cases))
        return found

    def time(self, split: str, count: int, wording: Wording, histories: Sequence[int], candidates: int) -> list[Record]:
        """Time both ways on the same items, one after the other; return a record per item and length of history."""
        found = []
        cases = [(item, history) for item in drawn_items(self.towers.dataset, split, count) for history in histories]
        for number, (item, history) in enumerate(cases):
            key = {**self._key("time", split, item, wording, history), "candidates": candidates}
            record = self.journal.find(key)
            if record is None:
                judged = Judged.of(self.towers, split, item, candidates, 0)
                record = {**key, **self._times(judged, wording, history), "load": load()}
                self.journal.add(record)
            found.append(record)
            self.progress("timing items", number + 1, len(cases))
        return found

    def _key(self, case: str, split: str, item: int, wording: Wording, history: int) -> Record:
        return {
            "case": case,
            "dataset": self.towers.dataset.sha256[:16],
            "split": split,
            "item": item,
            "wording": wording.name,
            "template": wording.template,
            "history": history,
            "precision": self.precision,
        }

    def _prompts(self, judged: Judged, wording: Wording, history: int) -> list[str]:
        text = self.towers.dataset.texts[judged.item]
        titles = (self.towers.titles(user, judged.item, history) for user in judged.users.tolist())
        return [wording.prompt(self.judge.tokenizer, each, text) for each in titles]

    def _times(self, judged: Judged, wording: Wording, history: int) -> Record:
        """Time the filter, the judge once, and each model several times right after it."""
        count = judged.sources.count(FILTER)
        filtered = Taken.of(lambda: self.towers.candidates(judged.item, count))
        before = self.judge.tokens
        judging = Taken.of(lambda: self.judge.probabilities(self._prompts(judged, wording, history)))
        text = self.towers.dataset.texts[judged.item]
        models: dict[str, Any] = {}
        for name, model in self.models.items():
            model.likely_users(model.encode([text]), K)  # the first call warms up
            runs = [Taken.of(lambda m=model: m.likely_users(m.encode([text]), K)) for _ in range(_REPEATS)]
            models[name] = Taken.median(runs).to_json()
        tokens = self.judge.tokens - before
        return {"filter": filtered.to_json(), "judge": judging.to_json(), "tokens": tokens, "models": models}


def open_models(paths: Sequence[Path]) -> dict[str, CheckpointRanker]:
    """Open checkpoints; each is called by the name of its directory."""
    return {path.name: CheckpointRanker(path) for path in paths}
