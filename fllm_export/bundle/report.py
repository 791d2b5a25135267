"""``reports/report.html``: the build's measurements as one page to look at, without scripts or outside files."""

from __future__ import annotations

from html import escape

from fllm_export.bundle.bundle import ENCODER_REPORT, PARITY_REPORT, Bundle
from fllm_export.bundle.charts import bars, divided_bar
from fllm_export.bundle.parity import Parity
from fllm_export.files import publish_text

FILE_NAME = "reports/report.html"

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #ffffff; --faint: #d8d8d8; --mark: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #181818; --faint: #444; --mark: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 720px;
  margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin-top: 2em; }
svg { width: 100%; font-size: 13px; } svg text { fill: var(--ink); }
svg .mark { stroke: var(--mark); stroke-width: 2; stroke-dasharray: 4 3; }
table { border-collapse: collapse; } td, th { padding: 2px 12px 2px 0; text-align: left; vertical-align: top; }
td { border-top: 1px solid var(--faint); } code { overflow-wrap: anywhere; }
"""


def write_report(bundle: Bundle, min_recall: float) -> None:
    """Write the page of a staged bundle whose other reports are in place."""
    publish_text(bundle.path / FILE_NAME, _page(bundle, min_recall))


def _page(bundle: Bundle, min_recall: float) -> str:
    layout, parity = bundle.table().layout, bundle.parity()
    source = bundle.report(PARITY_REPORT)["item_texts"]["source"]
    title = f"{layout.rows:,} users x {layout.dim}, {layout.codec}"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Bundle report: {escape(title)}</title><style>{_STYLE}</style>
<h1>Bundle report: {escape(title)}</h1>
<p>How the bundle ranks users compared with the unmerged fp32 checkpoint, on {parity.texts} item texts of
<code>{escape(source)}</code>.</p>
<h2>Share of the checkpoint's top K that the bundle's top K lost</h2>
{_loss_chart(parity, min_recall)}
<p>The dashed line is what was allowed: recall@{parity.k} of at least {min_recall:g}.</p>
<h2>Texts by their recall@{parity.k}</h2>
{_spread_chart(parity)}
<h2>Errors</h2>
{_error_table(bundle, parity)}
<h2>The worst text</h2>
<p>{escape(parity.worst["text"])}</p>
<table><tr><th>checkpoint's first users</th><td>{", ".join(map(str, parity.worst["expected"]))}</td></tr>
<tr><th>bundle's first users</th><td>{", ".join(map(str, parity.worst["found"]))}</td></tr></table>
<h2>Where the bytes are</h2>
{_bytes_chart(bundle)}
</html>
"""


def _loss_chart(parity: Parity, min_recall: float) -> str:
    lost = {f"recall@{depth}": 1.0 - value for depth, value in parity.recall.items()}
    texts = {f"recall@{depth}": f"{value:.4f}" for depth, value in parity.recall.items()}
    return bars(lost, texts, largest=1.1 * max(*lost.values(), 1.0 - min_recall), mark=1.0 - min_recall)


def _spread_chart(parity: Parity) -> str:
    values = {label: float(count) for label, count in parity.recall_counts.items()}
    texts = {label: f"{count:.0f}" for label, count in values.items()}
    return bars(values, texts, largest=max(values.values()))


def _error_table(bundle: Bundle, parity: Parity) -> str:
    encoder = bundle.report(ENCODER_REPORT)
    rows = {
        "score error, root mean square": f"{parity.score_error_rms:.2e}",
        "score error, largest": f"{parity.score_error_max:.2e}",
        "spread of all scores": f"{parity.score_spread:.2e}",
        "log-normaliser error, largest": f"{parity.logsumexp_error_max:.2e}",
        "merged against unmerged, relative": f"{encoder['merge']['max_relative_error']:.1e}",
        "ONNX against torch, relative": f"{encoder['onnx_against_torch']['max_rel']:.1e}",
    }
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{value}</td></tr>" for name, value in rows.items())
    return f"<table>{cells}</table>"


def _bytes_chart(bundle: Bundle) -> str:
    sizes: dict[str, float] = {}
    for path in bundle.path.rglob("*"):
        if path.is_file():
            part = path.relative_to(bundle.path).parts[0]
            sizes[part] = sizes.get(part, 0.0) + path.stat().st_size
    largest_first = dict(sorted(sizes.items(), key=lambda item: -item[1])[:5])
    return divided_bar(largest_first, {part: f"{size / 2**20:,.2f} MiB" for part, size in largest_first.items()})
