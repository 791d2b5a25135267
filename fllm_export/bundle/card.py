"""The model card: what a bundle is, where it came from and how well it ranks, in the bundle's ``README.md``."""

from __future__ import annotations

from typing import Any

from fllm_export.bundle.bundle import ENCODER_REPORT, PARITY_REPORT, Bundle
from fllm_export.checkpoint.spec import CheckpointSpec
from fllm_export.files import publish_text

FILE_NAME = "README.md"


def write_card(bundle: Bundle, spec: CheckpointSpec, provenance: dict[str, Any]) -> None:
    """Write the card of a staged bundle whose reports are in place."""
    publish_text(bundle.path / FILE_NAME, _card(bundle, spec, provenance))


def _card(bundle: Bundle, spec: CheckpointSpec, provenance: dict[str, Any]) -> str:
    layout = bundle.table().layout
    texts = bundle.report(PARITY_REPORT)["item_texts"]
    merge = bundle.report(ENCODER_REPORT)["merge"]
    table_bytes = sum(shard.bytes for shard in layout.shards)
    parity = bundle.parity()
    recall = "\n".join(f"| {depth} | {value:.4f} |" for depth, value in sorted(parity.recall.items()))
    required = provenance["min_recall"]
    merged = (
        ""
        if not merge["adapter_sha256"]
        else (f" Merging the adapter changed scores by at most\n{merge['max_relative_error']:.1e} relative.")
    )
    versions = "\n".join(f"| {name} | {number} |" for name, number in sorted(provenance["versions"].items()))
    return f"""# FilterLLM bundle: {layout.rows:,} users

An item's text goes in; the users most likely to interact with it come out, with exact probabilities.

```python
from fllm_export import Runtime

answer = Runtime.open("{bundle.path.name.removesuffix(".partial")}").topk(["the item's text"], k=20)
```

## What it is

| | |
| --- | --- |
| base model | {provenance["base_model"]} |
| LoRA adapter | {"merged into the encoder" if provenance["adapter_sha256"] else "none"} |
| prompt | `{spec.template}` |
| tokens at most | {spec.max_length} |
| pooling, mapper | {spec.pooling}, {spec.mapper} |
| users x dimensions | {layout.rows:,} x {layout.dim} |
| user table | {layout.codec}, {table_bytes:,} bytes in {len(layout.shards)} shard(s) |
| exporter | {provenance["exporter"]} |
| built | {provenance["built_at"]}, by fllm-export {provenance["versions"]["fllm-export"]} |

## How well it ranks

**recall@{parity.k} is {parity.recall[parity.k]:.4f}; at least {required:g} was required.** recall@K is the share of
the fp32 checkpoint's K best users that are among the bundle's K best. It was measured against the unmerged checkpoint,
as the mean over {parity.texts} item texts of `{texts["source"]}`:

| K | recall@K |
| --- | --- |
{recall}

The worst text has recall@{parity.k} {parity.worst_recall:.4f}. Scores differ by {parity.score_error_rms:.2e} (root mean
square; at most {parity.score_error_max:.2e}), where the scores of all users spread by {parity.score_spread:.2e}; the
log-normaliser by at most {parity.logsumexp_error_max:.2e}.{merged}

`reports/report.html` shows the same with charts.

## Where it came from

| | SHA-256 |
| --- | --- |
| checkpoint | `{provenance["checkpoint_sha256"]}` |
| adapter | `{provenance["adapter_sha256"] or "none"}` |
| item texts | `{texts["sha256"]}` |

| package | version |
| --- | --- |
{versions}

The licence of the base model and of the training data goes with this bundle; fllm-export adds none of its own.
`fllm-export verify` checks every byte against `manifest.json`.
"""
