"""Tables of what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.judgment.journal import Record
from benchmarks.judgment.pairs import DRAWN, FILTER
from benchmarks.judgment.ranking import auc, interval, precision
from fllm_export.evaluation.dataset import Dataset
from fllm_export.evaluation.ranker import CheckpointRanker

DEPTHS = (5, 10, 20)

Values = dict[str, list[float]]


def wording_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return per wording the AUC of all pairs together, and the mean P(yes) of the right and the wrong."""
    rows = []
    for name in dict.fromkeys(record["wording"] for record in records):
        pairs = [
            pair
            for record in records
            if record["wording"] == name
            for pair in zip(record["yes"], record["right"], strict=True)
        ]
        right, wrong = [yes for yes, liked in pairs if liked], [yes for yes, liked in pairs if not liked]
        means = {"yes of right": statistics.fmean(right), "yes of wrong": statistics.fmean(wrong)}
        rows.append({"wording": name, "pairs": len(pairs), "auc": auc(right, wrong), **means})
    return rows


def ranked(records: Sequence[Record], dataset: Dataset, models: Mapping[str, CheckpointRanker]) -> dict[str, Values]:
    """Return for each way of ranking its values per item, by name of the metric.

    The filter and the judge rank the filter's users. A model ranks them too ("of the filter's"), and all users.
    """
    found: dict[str, Values] = {}
    for record in records:
        filtered = [at for at, source in enumerate(record["sources"]) if source == FILTER]
        right = np.array(record["right"])[filtered]
        yes = np.array(record["yes"])[filtered]
        _add(found, "filter", right)
        _add(found, "judge, of the filter's", right[np.argsort(-yes, kind="stable")])
        users = np.array(record["users"])[filtered]
        liked = dataset.splits[record["split"]].users_of(np.array([record["item"]]))[0]
        for name, model in models.items():
            best = model.topk(model.encode([dataset.texts[record["item"]]]), len(dataset.user_ids))[0]
            order = np.searchsorted(dataset.user_ids, best)
            places = np.empty(len(order), np.int64)
            places[order] = np.arange(len(order))
            _add(found, f"{name}, of the filter's", right[np.argsort(places[users], kind="stable")])
            _add(found, f"{name}, of all users", np.isin(order[: max(DEPTHS)], liked))
            _add_auc(found[f"{name}, of all users"], record, -places[record["users"]])
        _add_auc(found["judge, of the filter's"], record, np.array(record["yes"]))
    return found


def _add(found: dict[str, Values], name: str, right: np.ndarray[Any, Any]) -> None:
    values = found.setdefault(name, {})
    for k in DEPTHS:
        if k <= len(right):
            values.setdefault(f"precision@{k}", []).append(precision(right.tolist(), k))


def _add_auc(values: Values, record: Record, scores: np.ndarray[Any, Any]) -> None:
    """Add the AUC of those that liked the item against users drawn at random, where both are there."""
    right, drawn = np.array(record["right"]), np.array(record["sources"]) == DRAWN
    if right.any() and drawn.any():
        values.setdefault("auc", []).append(auc(scores[right], scores[drawn]))


def ranking_rows(found: Mapping[str, Values]) -> list[list[str]]:
    """Return a header and a line per way of ranking: means and 95 % intervals."""
    names = [f"precision@{k}" for k in DEPTHS] + ["auc"]
    rows = [["ranking", "items", *names]]
    for name, values in found.items():
        cells = [_cell(values[metric]) if metric in values else "-" for metric in names]
        rows.append([name, str(len(values[names[0]])), *cells])
    return rows


def _cell(values: Sequence[float]) -> str:
    mean, low, high = interval(values)
    return f"{mean:.3f} ({low:.3f}-{high:.3f})"


def time_rows(records: Sequence[Record]) -> list[list[str]]:
    """Return a header and a line per precision, length of history and model: medians over items, and their ratio."""
    clocks = ("cpu", "wall")
    rows = [
        ["precision", "titles", "model", "items", "tokens"]
        + [f"{who} {clock} s" for clock in clocks for who in ("judge", "model")]
        + [f"ratio {clock}" for clock in clocks]
    ]
    groups = dict.fromkeys((record["precision"], record["history"]) for record in records)
    for kind, history in groups:
        group = [each for each in records if (each["precision"], each["history"]) == (kind, history)]
        tokens = f"{_median(group, lambda each: each['tokens']):.0f}"
        for name in group[0]["models"]:
            cells, ratios = [], []
            for clock in clocks:
                judging = _median(group, lambda each, c=clock: each["filter"][c] + each["judge"][c])
                model = _median(group, lambda each, c=clock, n=name: each["models"][n][c])
                cells += [f"{judging:.2f}", f"{model:.4f}"]
                ratios.append(f"{_median(group, lambda each, c=clock, n=name: _ratio(each, n, c)):.1f}")
            rows.append([kind, str(history), name, str(len(group)), tokens, *cells, *ratios])
    return rows


def _ratio(record: Record, model: str, clock: str) -> float:
    """Return the time of filter and judge divided by the model's, of one item."""
    found: float = (record["filter"][clock] + record["judge"][clock]) / record["models"][model][clock]
    return found


def _median(records: Sequence[Record], value: Callable[[Record], float]) -> float:
    return statistics.median(map(value, records))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of a header and lines."""
    header, *lines = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *lines))
