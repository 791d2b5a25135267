"""Points and figures in words, for people."""

from __future__ import annotations

from fllm_export.counted import counted
from fllm_export.engines.registry import DEFAULT
from fllm_export.sweep.record import Record


def table_words(record: Record) -> str:
    """Return what is searched: our table, or the index of another library."""
    axes = record.axes
    if not record.own:
        return f"{record.system} {axes['index']}"
    beside = ", sketch" * axes["sketch"] + ", clusters" * axes["cluster"]
    finer = axes.get("refine", "no")
    beside += "" if finer == "no" else f", {finer} refinement"
    return f"{axes['quant']} x {axes['dim']}{beside}"


def search_words(record: Record) -> str:
    """Return how it is searched, without what is usual."""
    axes = record.axes
    if not record.own:
        known = ("index", "version", "batch", "threads", "log_probs")
        return ", ".join(f"{name} {value:g}" for name, value in axes.items() if name not in known)
    parts = ["exact" if axes["exact"] else "statistical"]
    if axes.get("candidates"):
        parts.append(f"{axes['candidates']} candidates per user")
    if axes["log_probs"] != "none":
        parts.append(f"log-probabilities {axes['log_probs']}")
    if axes["budget_ms"] is not None:
        parts.append(f"budget {axes['budget_ms']:g} ms")
    if axes["engine"] != DEFAULT:
        parts.append(f"engine {axes['engine']}")
    return ", ".join(parts)


def point_words(record: Record) -> str:
    """Return the point in one line, batch and threads aside."""
    search = search_words(record)
    return f"{table_words(record)}; {search}" if search else table_words(record)


def group_words(group: tuple[int, int, str]) -> str:
    """Return what calls of one batch size, thread count and log-probs mode have in common."""
    log_probs = group[2]
    given = "without probabilities" if log_probs == "none" else f"{log_probs} log-probabilities"
    return f"{call_words(*group[:2])}, {given}"


def call_words(batch: int, threads: int) -> str:
    """Return the size of a call."""
    return f"{counted(batch, 'item')} per call, {counted(threads, 'thread')}"


def milliseconds(value: float) -> str:
    """Return milliseconds with three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def details(record: Record, number: int, k: int) -> list[str]:
    """Return all that a chart tells of a point, in short lines."""
    found, axes = record.measured, record.axes
    return [
        f"{number}: {table_words(record)}",
        search_words(record) or "as it is",
        call_words(axes["batch"], axes["threads"]),
        f"recall@{k} {found.recall:.4f}, recall@{min(10, k)} {found.recall_at_10:.4f}",
        f"{milliseconds(found.median_ms)} ms ({milliseconds(found.median_low_ms)} to "
        f"{milliseconds(found.median_high_ms)}), p99 {milliseconds(found.p99_ms)}",
        f"{found.items_per_s:,.0f} items/s, {found.bytes_per_user:,.1f} bytes per user",
    ]
