"""Markdown tables from the JSON lines of one or more runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from benchmarks.native.machine import PACKAGES

_TITLES = {
    "read": "One item, the whole table in memory",
    "sketch": "One item, rows left unread",
    "budget": "One item within a budget",
    "batch": "Many items at once",
    "wide": "One item, long rows",
    "codecs": "One item, rows of fewer bits",
    "recall": "At equal recall of the exact float32 top-100",
    "disk": "From disk",
}
_HEADER = ("what", "rows", "items", "ms (min)", "yardstick of the same run", "its ms (min)", "times as fast", "notes")


def report(lines: Iterable[str]) -> str:
    """Return the tables of all comparisons, and what else was recorded, under the machine of each run."""
    results = [json.loads(line) for line in lines if line.strip()]
    machines = [_machine(result) for result in results if "machine" in result]
    sections = [_section(case, results) for case in _TITLES if any(result.get("case") == case for result in results)]
    return "\n\n".join([*machines, *sections]) + "\n"


def _machine(result: dict[str, Any]) -> str:
    about = result["machine"]
    versions = ", ".join(f"{name} {about['versions'][name]}" for name in PACKAGES if about["versions"].get(name))
    memory = about["memory_bytes"] / 2**30
    return (
        f"Run {result['run']} (preset {result['preset']}, engine {result['engine']}): {about['cpu']}, "
        f"{about['cpus']} CPUs, {', '.join(about['isa'])}, {memory:.0f} GiB, {about['system']}; "
        f"Python {about['python']}, {versions}; commit {about['commit']}; {result['threads']} threads, "
        f"top-{result['k']}, seed {result['seed']}, medians of up to {result['repeats']} paired rounds."
    )


def _section(case: str, results: list[dict[str, Any]]) -> str:
    own = [result for result in results if result.get("case") == case]
    rows = [_row(result) for result in own if "against" in result]
    table = [cells(_HEADER), cells(["---"] * len(_HEADER)), *map(cells, rows)]
    others = [f"- {_sentence(result)}" for result in own if "against" not in result]
    return "\n".join([f"## {_TITLES[case]}", "", *(table if rows else []), *([""] if rows and others else []), *others])


def _row(result: dict[str, Any]) -> list[str]:
    return [
        result["what"],
        f"{result['rows']:,} x {result['dim']} {result['users']}",
        str(result["items"]),
        f"{result['ms']:.2f} ({result['ms_min']:.2f})",
        result["against"],
        f"{result['against_ms']:.2f} ({result['against_ms_min']:.2f})",
        f"{result['times_as_fast']:.2f}",
        _notes(result),
    ]


def _notes(result: dict[str, Any]) -> str:
    notes = []
    if "target" in result:
        notes.append(f"recall at least {result['target']}")
    if "recall" in result:
        other = f" against {result['against_recall']:.4f}" if "against_recall" in result else ""
        notes.append(f"recall {result['recall']:.4f}{other}")
    if result.get("against_setting"):
        notes.append(", ".join(f"{name} {value:g}" for name, value in result["against_setting"].items()))
    for key, unit in (("gb_per_s", "GB/s"), ("giga_products_per_s", "G products/s")):
        if key in result:
            notes.append(f"{result[key]} {unit}")
    return "; ".join(notes)


def _sentence(result: dict[str, Any]) -> str:
    """Return a line that has no yardstick: a build, a memory figure, a library that is missing."""
    parts = [result["what"]]
    if "users" in result:
        parts.append(f"{result['rows']:,} x {result['dim']} {result['users']}, {result['items']} items")
    for key in ("target", "budget_ms", "late_ms_p50", "late_ms_p99", "late_ms_max", "coverage", "complete"):
        if key in result:
            parts.append(f"{key} {result[key]}")
    for key in ("recall", "reason", "build_s"):
        if key in result:
            parts.append(f"{key} {result[key]}")
    for key in ("memory_bytes", "file_bytes", "private_bytes_added"):
        if key in result:
            parts.append(f"{key} {result[key]:,}")
    if "trials" in result:
        parts.append(f"best recall {max(trial['recall'] for trial in result['trials']):.4f}")
    return "; ".join(parts)


def cells(values: Iterable[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(values) + " |"
