"""``report.html``: a sweep as one page to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from fllm_export import page
from fllm_export.counted import counted
from fllm_export.sweep.choice import Choice
from fllm_export.sweep.fronts import fronts, groups
from fllm_export.sweep.pictures import Curves, curves_of
from fllm_export.sweep.record import Record
from fllm_export.sweep.sweep import Sweep
from fllm_export.sweep.wording import group_words, milliseconds, point_words

FILE_NAME = "report.html"

_TARGETS = (0.99, 0.95, 0.9, 0.5, 0.0)
_HEADER = (
    "",
    "point",
    "recall@{k}",
    "recall@{ten}",
    "ms",
    "95 %",
    "p99 ms",
    "items/s",
    "bytes",
    "build s",
    "beaten by",
)


def report(swept: Sweep, choice: Choice | None = None) -> str:
    """Return the page, as HTML: curves, the table of all points, and what the figures depend on.

    Args:
        swept: what was found.
        choice: the operating point, where one was required.
    """
    about = swept.conditions
    curves = curves_of(swept.records, about.k, about.subject["items"])
    title = f"Recall beside latency: {about.subject['rows']:,} users x {about.subject['dim']}"
    sections = [
        f"<p><strong>{_summary(swept)}</strong></p>",
        *([] if choice is None else [_verdict(choice, about.k, curves)]),
        page.note(
            "To the right is a higher recall: each tick misses less. Filled marks are on the front: nothing else in "
            "the chart is better in both directions. The dotted line joins them, and a line in colour joins the best "
            "points of a codec or a library."
        ),
        curves.legend(),
        *_latency(swept, curves),
        page.section("Throughput and bytes", page.pair(_throughput(swept, curves), _bytes(swept, curves))),
        page.section("All points", *_points(swept, curves)),
        *_left_out(swept),
        page.section("What was measured", page.facts(_facts(swept))),
    ]
    return page.page(title, sections, wide=True)


def _summary(swept: Sweep) -> str:
    k, batch = swept.conditions.k, min(record.axes["batch"] for record in swept.records)
    calls = [record for record in swept.records if record.axes["batch"] == batch]
    best = max(record.measured.recall for record in calls)
    target = next(target for target in _TARGETS if target <= best)
    quickest = min(
        (record for record in calls if record.measured.recall >= target), key=lambda record: record.measured.median_ms
    )
    return (
        f"{counted(len(swept.records), 'point')}. With {counted(batch, 'item')} per call and a recall@{k} of at least "
        f"{target:g}, the lowest latency is {milliseconds(quickest.measured.median_ms)} ms, of "
        f"{escape(point_words(quickest))}."
    )


def _verdict(choice: Choice, k: int, curves: Curves) -> str:
    required, found = choice.required, choice.record.measured
    budget = "" if required.budget_ms is None else f" and a p99 of at most {required.budget_ms:g} ms"
    point = f"Point {curves.numbers[choice.record.point]} ({point_words(choice.record)})"
    figures = f"recall@{k} {found.recall:.4f}, p99 {milliseconds(found.p99_ms)} ms, {found.bytes_per_user:,.1f} bytes"
    return page.verdict(
        passed=choice.satisfied,
        found=f"a recall@{k} of at least {required.recall:g}{budget} was required.",
        meaning=f"{point} is the cheapest that satisfies it: {figures} per user."
        if choice.satisfied
        else f"No point satisfies it. {point} comes nearest: {figures} per user.",
    )


def _latency(swept: Sweep, curves: Curves) -> list[str]:
    charts = [
        page.entry(
            group_words(group),
            curves.chart(
                f"latency against recall: {group_words(group)}",
                records,
                "milliseconds per call (median)",
                lambda record: record.measured.median_ms,
                higher=False,
            ),
        )
        for group, records in sorted(groups(swept.records).items())
    ]
    return [page.section("Latency against recall", page.pair(*charts))]


def _throughput(swept: Sweep, curves: Curves) -> str:
    chart = curves.chart(
        "throughput against recall",
        swept.records,
        "items per second",
        lambda record: record.measured.items_per_s,
        higher=True,
    )
    return page.entry("Throughput against recall, all calls", chart)


def _bytes(swept: Sweep, curves: Curves) -> str:
    chart = curves.chart(
        "bytes against recall",
        swept.records,
        "bytes per user",
        lambda record: record.measured.bytes_per_user,
        higher=False,
    )
    return page.entry("Bytes against recall", chart)


def _points(swept: Sweep, curves: Curves) -> list[str]:
    k, found = swept.conditions.k, fronts(swept.records)
    header = [name.format(k=k, ten=min(10, k)) for name in _HEADER]
    parts = [
        page.note(
            "ms is the median of a call with its 95 % interval, p99 the time that 99 of 100 calls stay below, both "
            "without encoding a text. Points on the front of latency are bold. The last column names a point that is "
            "at least as good in recall and in latency (L), or in recall and in bytes per user (B)."
        )
    ]
    for group, records in sorted(groups(swept.records).items()):
        rows = [_row(record, curves.numbers, found.latency, found.bytes) for record in records]
        marks = [[at == 1 and found.latency[record.point] is None for at in range(len(header))] for record in records]
        parts.append(page.entry(group_words(group), page.scrolled(page.table(header, rows, marks, "best"))))
    return parts


def _row(
    record: Record,
    numbers: Mapping[str, int],
    latency: Mapping[str, str | None],
    size: Mapping[str, str | None],
) -> list[str]:
    found = record.measured
    beaten = [(letter, by[record.point]) for letter, by in (("L", latency), ("B", size))]
    return [
        str(numbers[record.point]),
        point_words(record) + (f" (reads {found.coverage:.0%})" if found.coverage < 1 else ""),
        f"{found.recall:.4f}",
        f"{found.recall_at_10:.4f}",
        milliseconds(found.median_ms),
        f"{milliseconds(found.median_low_ms)} to {milliseconds(found.median_high_ms)}",
        milliseconds(found.p99_ms),
        f"{found.items_per_s:,.0f}",
        f"{found.bytes_per_user:,.1f}",
        f"{found.build_s:,.1f}",
        ", ".join(f"{letter} {numbers[point]}" for letter, point in beaten if point is not None),
    ]


def _left_out(swept: Sweep) -> list[str]:
    if not swept.left_out:
        return []
    texts = [f"{reason} ({count})" for reason, count in swept.left_out.items()]
    return [page.section("Left out", page.listed("Combinations that were not measured, and how many:", texts))]


def _facts(swept: Sweep) -> dict[str, str]:
    about = swept.conditions
    subject, machine = about.subject, about.machine
    return {
        "users": f"{subject['rows']:,} of {subject['source']}, dimension {subject['dim']}"
        + (", with biases" if subject["bias"] else ""),
        "rows": f"stored as by {subject['stored_as']}",
        "items": f"{subject['items']}, drawn once for all points",
        "recall against": f"{subject['reference']}, all of them scored in fp32 in {swept.truth_s:.1f} s",
        "machine": f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['isa']}",
        "version": f"fllm-export {about.software['fllm-export']}, libfllm {about.software['libfllm_sha256'][:12]}",
        "timed": _spread([record.measured.runs for record in swept.records], "runs") + " of each call",
        "fp32 yardstick": _spread([record.measured.yardstick_ms for record in swept.records], "ms")
        + ": a plain scan of up to 65,536 rows between runs, whose spread shows how busy the machine was",
        "load average": _spread([record.measured.load for record in swept.records], ""),
        "rows SHA-256": subject["rows_sha256"],
        "items SHA-256": subject["items_sha256"],
    }


def _spread(values: Sequence[float], unit: str) -> str:
    low, high = min(values), max(values)
    return (f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}") + f" {unit}".rstrip()
