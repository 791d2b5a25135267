"""``fllm-export inspect``: what a bundle, a table or a checkpoint holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from fllm_export.cli.options import DIRECTORY
from fllm_export.cli.output import Output, byte_text, json_option, pass_output
from fllm_export.errors import UsageError


@click.command()
@click.argument("path", type=DIRECTORY)
@json_option
@pass_output
def inspect(output: Output, path: Path) -> None:
    """Describe the bundle, user table or checkpoint at PATH. Only headers are read."""
    kinds = {"manifest.json": _bundle, "table.json": _table, "filterllm.json": _checkpoint}
    for name, describe in kinds.items():
        if (path / name).is_file():
            facts = describe(path)
            width = max(len(key) for key in facts)
            output.result(facts, "\n".join(f"{key:<{width}}  {_text(key, value)}" for key, value in facts.items()))
            return
    raise UsageError(
        f"{path} is not a bundle, a user table or a checkpoint",
        expected="a directory that contains one of " + ", ".join(kinds),
        fix="Specify such a directory",
    )


def _bundle(path: Path) -> dict[str, Any]:
    from fllm_export.bundle.bundle import Bundle

    bundle = Bundle.load(path)
    files = bundle.files()
    parity, provenance, layout = bundle.parity(), bundle.manifest.provenance, bundle.table().layout
    return {
        "kind": "bundle",
        "bytes": sum(entry.bytes for entry in files.values()),
        "files": len(files),
        **_table_facts(path / "users"),
        "encoder": sorted(name for name in files if name.startswith("encoder/") and name.endswith(".onnx")),
        "base_model": provenance.get("base_model", "not recorded"),
        "encoder_precision": provenance.get("encoder_precision", "fp32"),
        "adapter": provenance.get("adapter_sha256") is not None,
        **{key: value for key, value in asdict(bundle.manifest.prompt).items()},
        f"recall@{parity.k}": round(parity.recall[parity.k], 4),
        "changed_since_build": layout.identity != "" and layout.identity != layout.born().identity,
        "plans": _plans(path),
        "min_recall": provenance.get("min_recall", "not recorded"),
        "built_at": provenance.get("built_at", "not recorded"),
        "checkpoint_sha256": provenance.get("checkpoint_sha256"),
        "adapter_sha256": provenance.get("adapter_sha256"),
    }


def _plans(path: Path) -> list[str]:
    from fllm_export.engines.tensorrt.plan import read_plans

    return [plan.file for part in ("encoder", "head") for plan in read_plans(path / part / "plans")]


def _table(path: Path) -> dict[str, Any]:
    return {"kind": "user table", **_table_facts(path)}


def _table_facts(path: Path) -> dict[str, Any]:
    from fllm_export.table.table import Table

    layout = Table(path).layout
    return {
        "users": layout.rows,
        "dim": layout.dim,
        "codec": layout.codec,
        "table_bytes": sum(file.bytes for file in layout.files),
        "shards": len(layout.shards),
        "deleted_rows": layout.stored_rows - layout.rows,
        "tile_rows": layout.tile_rows,
        "clustered": layout.tile_bounds,
        "sketch_dims": layout.sketch_dims,
        "refinement": None if layout.refinement is None else layout.refinement.codec,
        "item_dim": layout.item_dim,
        "bias": layout.bias,
        "link": str(layout.link),
        "generation": layout.generation,
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    from fllm_export.checkpoint.checkpoint import Checkpoint

    checkpoint = Checkpoint.load(path)
    facts = {"features": [], **checkpoint.spec.to_json(), "link": str(checkpoint.spec.link)}
    return {"kind": "checkpoint", **facts, "adapter": checkpoint.adapter is not None}


def _text(key: str, value: Any) -> str:
    if value is None:
        return "none"
    if key == "features":
        return ", ".join(" ".join(step.values()) for step in value) or "none"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if key == "changed_since_build" and value:
        return "yes: the recall is that of the table as it was built"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "sketch_dims":
        return str(value) if value else "no sketch"
    if isinstance(value, int):
        return f"{value:,} ({byte_text(value)})" if key.endswith("bytes") else f"{value:,}"
    return str(value)
