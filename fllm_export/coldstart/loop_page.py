"""What an evaluation of the cold-start loop found, as a page to look at."""

from __future__ import annotations

from collections.abc import Mapping

from fllm_export import page
from fllm_export.charts import Dot, Scale, dots
from fllm_export.coldstart.loop_arms import NO_PAIRS
from fllm_export.coldstart.loop_result import LoopResult
from fllm_export.coldstart.ranking_tasks import TASKS

_HEADINGS = {"overall": "All items", "cold": "Cold items among themselves"}


def loop_page(title: str, setting: Mapping[str, str], result: LoopResult) -> str:
    """Return a page, as HTML.

    Args:
        title: what was measured, as plain text.
        setting: facts that the figures depend on, by name.
        result: the figures.
    """
    sections = [
        page.section("All figures", _table(result), page.note(result.legend())),
        *(page.section(f"{heading}, NDCG@{result.k}", *_chart(result, task)) for task, heading in _HEADINGS.items()),
        page.section("What was measured", page.facts({**setting, **_chosen(result)})),
    ]
    return page.page(title, sections, wide=True)


def _table(result: LoopResult) -> str:
    rows = result.rows()
    columns = [result.means(task, metric) for task, metric in result.columns()]
    best = [max(column.values()) for column in columns]
    # Where no arm is better than the one without pseudo-interactions, all that leave the vectors alone would be bold.
    marks = [
        [
            False,
            *(
                arm in column and column[arm] == most > column.get(NO_PAIRS, 0.0)
                for column, most in zip(columns, best, strict=True)
            ),
        ]
        for arm in result.metrics
    ]
    return page.scrolled(page.table(result.header(), rows, marks, kind="best"))


def _chart(result: LoopResult, task: str) -> list[str]:
    assert task in TASKS
    means = result.means(task, "ndcg")
    rows = [Dot(arm, value, f"{value:.4f}", means[NO_PAIRS]) for arm, value in means.items()]
    scale = Scale.from_zero(f"NDCG@{result.k}", max(means.values()))
    told = page.note("The red line in each row is the mean without pseudo-interactions.")
    return [dots(f"{_HEADINGS[task]}, NDCG@{result.k} by arm", rows, scale), told]


def _chosen(result: LoopResult) -> dict[str, str]:
    return {
        f"{arm}, chosen on validation pairs": ", ".join(f"{name} {value:g}" for name, value in params.items())
        for arm, params in result.params.items()
        if params
    }
