"""The contest of libraries over several runs: the least favourable of each ratio, and the most favourable beside it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from benchmarks.native.equal_recall import CASE
from benchmarks.native.report import cells

Column = tuple[bool, float]
"""Whether items come many at once, and the recall that both sides reach."""


def contest(lines: Iterable[str]) -> str:
    """Return Markdown tables, one for each kind of users, of all comparisons at equal recall.

    A ratio is how many times as fast ours is. A dash stands where no run has a setting that reaches the recall.
    """
    results = [json.loads(line) for line in lines if line.strip()]
    compared = [result for result in results if result.get("case") == CASE and "against" in result]
    runs = {result["run"]: result for result in compared}
    kinds = dict.fromkeys(result["users"] for result in compared)
    loads = [result["load"] for result in compared]
    about = f"{len(runs)} runs, load average {min(loads):.1f} to {max(loads):.1f} during comparisons." if runs else ""
    return "\n\n".join([about, *(_table(kind, compared) for kind in kinds)]) + "\n"


def _table(kind: str, compared: list[dict[str, Any]]) -> str:
    own = [result for result in compared if result["users"] == kind]
    items = max(result["items"] for result in own)
    columns = [(many, target) for many in (False, True) for target in sorted({result["target"] for result in own})]
    ratios: dict[str, dict[Column, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in own:
        ratios[result["against"]][result["items"] > 1, result["target"]].append(result["times_as_fast"])
    names = [f"{f'{items} items' if many else 'one item'}, {target:g}" for many, target in columns]
    head = [cells([kind, *names]), cells(["---"] * (len(columns) + 1))]
    rows = [cells([name, *(_cell(of_it[column]) for column in columns)]) for name, of_it in ratios.items()]
    return "\n".join([*head, *rows])


def _cell(ratios: list[float]) -> str:
    """Return the least ratio, in bold where ours is slower, and the largest in brackets."""
    if not ratios:
        return "-"
    least, most = min(ratios), max(ratios)
    text = f"**{_short(least)}**" if least < 1 else _short(least)
    return text if len(ratios) == 1 else f"{text} ({_short(most)})"


def _short(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 2 else f"{ratio:.2f}"
