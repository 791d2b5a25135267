"""The model card: what a bundle is, where it came from and how well it ranks, in the bundle's ``README.md``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fllm_export.bundle.bundle import ENCODER_REPORT, PARITY_REPORT, Bundle
from fllm_export.bundle.calibration import calibration_facts
from fllm_export.bundle.encoder_facts import encoder_cost, encoder_facts
from fllm_export.bundle.learning import interaction_facts
from fllm_export.bundle.size_facts import HEADER, PICTURE, front_rows, size_facts
from fllm_export.checkpoint.spec import CheckpointSpec
from fllm_export.counted import counted
from fllm_export.files import publish_text
from fllm_export.manifest import MOMENTS

FILE_NAME = "README.md"


def write_card(bundle: Bundle, spec: CheckpointSpec, provenance: dict[str, Any]) -> None:
    """Write the card of a staged bundle whose reports are in place."""
    sections = [
        _head(bundle),
        f"## What it is\n\n{_table('', '', _facts(bundle, spec, provenance))}",
        f"## How well it ranks\n\n{_ranking(bundle, provenance['min_recall'])}",
        *_sizes(bundle),
        f"## Where it came from\n\n{_origin(bundle, provenance)}",
    ]
    publish_text(bundle.path / FILE_NAME, "\n\n".join(sections) + "\n")


def _head(bundle: Bundle) -> str:
    return f"""# FilterLLM bundle: {bundle.table().layout.rows:,} users

An item's text goes in; the users most likely to interact with it come out, with exact probabilities.

```python
from fllm_export import Runtime

answer = Runtime.open("{bundle.path.name.removesuffix(".partial")}").topk(["the item's text"], k=20)
```"""


def _facts(bundle: Bundle, spec: CheckpointSpec, provenance: dict[str, Any]) -> dict[str, str]:
    layout = bundle.table().layout
    table_bytes = sum(file.bytes for file in layout.shards)
    return {
        "base model": provenance["base_model"],
        "LoRA adapter": "merged into the encoder" if provenance["adapter_sha256"] else "none",
        "prompt": f"`{spec.template}`",
        "tokens at most": f"{spec.max_length}",
        "pooling": spec.pooling,
        "features": ", then ".join(map(str, spec.features)) or "none: the pooled state itself",
        "mapper": spec.mapper,
        "users x dimension": f"{layout.rows:,} x {layout.dim}",
        "user table": f"{layout.codec}, {table_bytes:,} bytes in {counted(len(layout.shards), 'shard')}",
        **layout.refinement_facts,
        **interaction_facts(layout),
        **size_facts(bundle.size_search()),
        **calibration_facts(bundle.calibration()),
        "exporter": provenance["exporter"],
        **encoder_facts(bundle, provenance),
        "built": f"{provenance['built_at']}, by fllm-export {provenance['versions']['fllm-export']}",
    }


def _ranking(bundle: Bundle, required: float) -> str:
    parity, merge = bundle.parity(), bundle.report(ENCODER_REPORT)["merge"]
    source = bundle.report(PARITY_REPORT)["item_texts"]["source"]
    texts = f"{parity.texts} item texts" + ("" if source == "memory" else f" of `{source}`")
    merging = f" Merging the adapter changed scores by at most {merge['max_relative_error']:.2g} relative."
    return f"""**recall@{parity.k} is {parity.recall[parity.k]:.4f}; at least {required:g} was required.** recall@K is
the share of the fp32 checkpoint's K best users that are among the bundle's K best, here the mean over {texts}. The
checkpoint is taken as it was trained, before its adapter is merged. {encoder_cost(bundle)}

{_table("K", "recall@K", {str(depth): f"{value:.4f}" for depth, value in sorted(parity.recall.items())})}

The worst text has recall@{parity.k} {parity.worst_recall:.4f}. Scores differ by {parity.score_error_rms:.3g} (root mean
square; at most {parity.score_error_max:.3g}), where the scores of all users spread by {parity.score_spread:.3g}; the
log-normaliser by at most {parity.logsumexp_error_max:.3g}.{merging if merge["adapter_sha256"] else ""}

`reports/report.html` shows the same with charts."""


def _sizes(bundle: Bundle) -> list[str]:
    report = bundle.size_search()
    if report is None:
        return []
    names = [name.format(k=report["k"]) for name in HEADER]
    cells = [names, ["---"] * len(names), *front_rows(report)]
    return [
        "## How codec, dimension and rounding were chosen\n\n"
        f"![Recall against bytes per user]({PICTURE})\n\n"
        "No smaller form of rows that was measured ranks as well as one of these:\n\n"
        + "\n".join(f"| {' | '.join(row)} |" for row in cells)
    ]


def _origin(bundle: Bundle, provenance: dict[str, Any]) -> str:
    hashes = {
        "checkpoint": f"`{provenance['checkpoint_sha256']}`",
        "adapter": f"`{provenance['adapter_sha256']}`" if provenance["adapter_sha256"] else "none",
        "item texts": f"`{bundle.report(PARITY_REPORT)['item_texts']['sha256']}`",
    }
    if "moments_sha256" in (provenance["calibration"] or {}):
        hashes[f"moments of item vectors (`{MOMENTS}`)"] = f"`{provenance['calibration']['moments_sha256']}`"
    return f"""{_table("", "SHA-256", hashes)}

{_table("package", "version", dict(sorted(provenance["versions"].items())))}

The licence of the base model and of the training data goes with this bundle; fllm-export adds none of its own.
`fllm-export verify` checks every byte against `manifest.json`."""


def _table(left: str, right: str, rows: Mapping[str, str]) -> str:
    header = f"| {left} | {right} |" if left or right else "| | |"
    return "\n".join([header, "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])
