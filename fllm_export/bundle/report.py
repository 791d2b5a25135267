"""``reports/report.html``: the build's measurements as one page to look at, and what was decided by them."""

from __future__ import annotations

from typing import Any

from fllm_export import page
from fllm_export.bundle import ledger
from fllm_export.bundle.bundle import ENCODER_REPORT, PARITY_REPORT, Bundle
from fllm_export.bundle.calibration import calibration_facts
from fllm_export.bundle.encoder_facts import encoder_cost, encoder_facts
from fllm_export.bundle.learning import interaction_facts
from fllm_export.bundle.parity import Parity
from fllm_export.bundle.size_facts import (
    HEADER,
    PICTURE,
    front_rows,
    size_chart,
    size_facts,
    size_legend,
    size_picture,
)
from fllm_export.charts import Dot, Scale, bars, dots, legend
from fllm_export.files import publish_text
from fllm_export.manifest import describe_files

FILE_NAME = "reports/report.html"

_FLOORS = (0.98, 0.95, 0.9, 0.8, 0.5, 0.0)
_FIRST_RANKS = 5
_DIFFERENCES_MAX = 30
_PARTS = {"users": "user table", "encoder": "encoder", "head": "head graphs", "tokenizer.json": "tokenizer"}


def write_report(bundle: Bundle, provenance: dict[str, Any]) -> None:
    """Write the page of a staged bundle whose other reports are in place."""
    publish_text(bundle.path / FILE_NAME, _page(bundle, provenance))
    searched = bundle.size_search()
    if searched is None:
        (bundle.path / PICTURE).unlink(missing_ok=True)
    else:
        publish_text(bundle.path / PICTURE, size_picture(searched))


def _page(bundle: Bundle, provenance: dict[str, Any]) -> str:
    layout, parity = bundle.table().layout, bundle.parity()
    required = provenance["min_recall"]
    sections = [
        _verdict(parity, required),
        page.section("What was built", _origin(bundle, parity, provenance)),
        page.section(
            "How much of the checkpoint's ranking is kept",
            page.note(
                "recall@K is the share of the checkpoint's K best users that are among the bundle's K best users, "
                f"as the mean over all texts. The red line marks the recall@{parity.k} that was required. "
                + encoder_cost(bundle)
            ),
            _recall_chart(parity, required),
        ),
        page.section(
            f"How recall@{parity.k} is spread over the texts",
            _spread_chart(parity),
        ),
        page.section("The text with the lowest recall", *_worst(parity)),
        *_sizes(bundle),
        page.section("How far numbers differ", _errors(bundle, parity)),
        page.section("Where the bytes are", *_bytes(bundle)),
    ]
    return page.page(f"Bundle report: {layout.rows:,} users, {layout.codec}", sections)


def _verdict(parity: Parity, required: float) -> str:
    recall = parity.recall[parity.k]
    passed = recall >= required
    kept = f"{parity.k * recall:.1f} of the {parity.k} users that the fp32 checkpoint ranks first"
    return page.verdict(
        passed=passed,
        found=f"recall@{parity.k} is {recall:.4f}, and at least {required:g} was required.",
        meaning=f"On {parity.texts} item texts, the bundle returns on average {kept}."
        + ("" if passed else " The bundle was not published."),
    )


def _origin(bundle: Bundle, parity: Parity, provenance: dict[str, Any]) -> str:
    layout = bundle.table().layout
    texts = bundle.report(PARITY_REPORT)["item_texts"]["source"]
    return page.facts(
        {
            "users": f"{layout.rows:,}, one row of dimension {layout.dim} each",
            "codec of the rows": layout.codec,
            **layout.refinement_facts,
            **interaction_facts(layout),
            **size_facts(bundle.size_search()),
            **calibration_facts(bundle.calibration()),
            "base model": provenance["base_model"],
            "LoRA adapter": "merged into the encoder" if provenance["adapter_sha256"] else "none",
            **encoder_facts(bundle, provenance),
            "compared with": "the same checkpoint, unmerged, in fp32",
            "compared on": f"{parity.texts} item texts" + ("" if texts == "memory" else f" of {texts}"),
            "built": f"{provenance['built_at']}, by fllm-export {provenance['versions']['fllm-export']}",
        }
    )


def _recall_chart(parity: Parity, required: float) -> str:
    lowest = min(*parity.recall.values(), required)
    floor = next(value for value in _FLOORS if value < lowest or value == 0)
    scale = Scale("recall@K", floor, 1.0, [floor + (1.0 - floor) * part / 2 for part in range(3)], 3)
    rows = [
        Dot(f"recall@{depth}", value, f"{value:.4f}", required if depth == parity.k else None)
        for depth, value in parity.recall.items()
    ]
    return dots("recall at each depth", rows, scale)


def _spread_chart(parity: Parity) -> str:
    labels = {label: f"recall {label}" if label != "1" else "recall 1: no user lost" for label in parity.recall_counts}
    rows = {labels[label]: {"texts": float(count)} for label, count in parity.recall_counts.items()}
    texts = {labels[label]: str(count) for label, count in parity.recall_counts.items()}
    scale = Scale.from_zero("number of item texts", max(4, *parity.recall_counts.values()))
    return bars(f"texts by their recall@{parity.k}", rows, texts, scale)


def _worst(parity: Parity) -> list[str]:
    """Return the worst text's two rankings side by side: the first ranks, and all at which a user is lost or new."""
    expected, found = parity.worst["expected"], parity.worst["found"]
    lost, new = set(expected) - set(found), set(found) - set(expected)
    ranks = [
        rank
        for rank, (mine, theirs) in enumerate(zip(expected, found, strict=True))
        if rank < _FIRST_RANKS or mine in lost or theirs in new
    ][: _FIRST_RANKS + _DIFFERENCES_MAX]
    rows, marks, before = [], [], -1
    for rank in ranks:
        if rank > before + 1:
            rows.append(["...", "", ""])
            marks.append([False, False, False])
        mine, theirs = expected[rank], found[rank]
        rows.append([str(rank + 1), f"{mine}" + " (lost)" * (mine in lost), f"{theirs}" + " (new)" * (theirs in new)])
        marks.append([False, mine in lost, theirs in new])
        before = rank
    shown = "" if len(ranks) < _FIRST_RANKS + _DIFFERENCES_MAX else " Only the first differences are shown."
    return [
        page.quote(parity.worst["text"]),
        page.note(
            f"recall@{parity.k} is {parity.worst_recall:.4f}: {len(lost)} of the checkpoint's first {len(expected)} "
            f"users are lost. Users in red are in one of the two rankings only.{shown}"
        ),
        page.table(["rank", "user, by the checkpoint", "user, by the bundle"], rows, marks),
    ]


def _sizes(bundle: Bundle) -> list[str]:
    """Return what the search for the form of rows walked, if there was one."""
    report = bundle.size_search()
    if report is None:
        return []
    rows = front_rows(report)
    return [
        page.section(
            "How codec, dimension and rounding were chosen",
            page.note(
                f"Each mark is a form of rows whose recall@{report['k']} was measured on the texts that choose. Filled "
                "marks are on the front: no smaller form ranks as well. The diamond was chosen."
            ),
            size_legend(report),
            size_chart(report),
            page.table(
                [name.format(k=report["k"]) for name in HEADER], rows, [[bool(row[0])] * 4 for row in rows], "best"
            ),
        )
    ]


def _errors(bundle: Bundle, parity: Parity) -> str:
    encoder = bundle.report(ENCODER_REPORT)
    rows = {
        "spread of all scores (standard deviation)": f"{parity.score_spread:.3g}",
        "score error, root mean square": f"{parity.score_error_rms:.3g}",
        "score error, largest": f"{parity.score_error_max:.3g}",
        "error of the log-normaliser, largest": f"{parity.logsumexp_error_max:.3g}",
        "ONNX encoder against torch, relative": f"{encoder['onnx_against_torch']['max_rel']:.2g}",
    }
    if encoder["merge"]["adapter_sha256"]:
        rows["merged against unmerged adapter, relative"] = f"{encoder['merge']['max_relative_error']:.2g}"
    return page.facts(rows)


def _bytes(bundle: Bundle) -> list[str]:
    sizes = dict.fromkeys([*_PARTS.values(), "other"], 0)
    for name, entry in describe_files(bundle.path, ledger.FILES).items():
        sizes[_PARTS.get(name.split("/", 1)[0], "other")] += entry.bytes
    sizes["user table"] += sum(file.bytes for file in bundle.table().layout.files)
    mebibytes = {part: size / 2**20 for part, size in sizes.items()}
    total = sum(mebibytes.values())
    chart = bars("bytes by part", {"bundle": mebibytes}, {"bundle": f"{total:,.2f} MiB"}, Scale.from_zero("MiB", total))
    return [chart, legend([f"{part} {size:,.2f} MiB ({size / total:.1%})" for part, size in mebibytes.items()])]
