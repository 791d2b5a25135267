"""What ``bench`` measured as a page to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fllm_export import page
from fllm_export.charts import Scale, bars, legend
from fllm_export.counted import counted
from fllm_export.runtime.latency import STAGES, Latency


def latency_page(title: str, setting: Mapping[str, str], results: Sequence[Latency]) -> str:
    """Return a page, as HTML.

    Args:
        title: what was measured, as plain text.
        setting: facts that the times depend on, by name.
        results: one per batch size, at least one.
    """
    first = results[0]
    told = (
        f"A call with {_items(first)} takes {first.total.median:.1f} ms (median of {first.repeats} calls; one in "
        f"100 takes more than {first.total.p99:.1f} ms)."
    )
    sections = [
        f"<p><strong>{told}</strong></p>",
        page.section("Where the time goes", *_stages(results)),
        page.section("Times", _times(results)),
        page.section("What was measured", page.facts(setting)),
    ]
    return page.page(title, sections)


def _stages(results: Sequence[Latency]) -> list[str]:
    stages = [stage for stage in STAGES if stage in results[0].stages]
    rows: dict[str, dict[str, float]] = {}
    for result in results:
        rows[_items(result)] = {stage: result.stages[stage].median for stage in stages}
        if result.yardstick is not None:
            # The plain scan has a colour of its own, behind those of the stages.
            rows[f"{_items(result)}, plain scan"] = {**dict.fromkeys(stages, 0.0), "plain": result.yardstick.median}
    totals = {name: sum(parts.values()) for name, parts in rows.items()}
    scale = Scale.from_zero("milliseconds per call (median)", max(totals.values()))
    chart = bars("time per stage", rows, {name: f"{total:.2f} ms" for name, total in totals.items()}, scale)
    names = [*stages, "plain scan: NumPy, the same rows in fp32, without an encoder"]
    return [chart, legend(names[: len(stages) + any(result.yardstick is not None for result in results)])]


def _times(results: Sequence[Latency]) -> str:
    rows = [
        [
            _items(result),
            f"{result.total.median:.2f}",
            f"{result.total.p90:.2f}",
            f"{result.total.p99:.2f}",
            f"{1e3 * result.batch / result.total.median:,.0f}",
        ]
        for result in results
    ]
    header = ["call", "median ms", "90 % below", "99 % below", "items/s"]
    return page.table(header, rows, [[False] * len(header)] * len(rows))


def _items(result: Latency) -> str:
    return counted(result.batch, "item")
