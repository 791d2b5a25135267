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
    """Describe the bundle, user table or checkpoint at PATH, from its headers alone."""
    kinds = {"manifest.json": _bundle, "table.json": _table, "filterllm.json": _checkpoint}
    for name, describe in kinds.items():
        if (path / name).is_file():
            facts = describe(path)
            width = max(len(key) for key in facts)
            output.result(facts, "\n".join(f"{key:<{width}}  {_text(key, value)}" for key, value in facts.items()))
            return
    raise UsageError(
        f"{path} is not a bundle, a user table or a checkpoint",
        expected="a directory with " + ", ".join(kinds),
        fix="Name one of these",
    )


def _bundle(path: Path) -> dict[str, Any]:
    from fllm_export.bundle.bundle import Bundle

    bundle = Bundle.load(path)
    files = bundle.files()
    parity = bundle.parity()
    return {
        "kind": "bundle",
        "bytes": sum(entry.bytes for entry in files.values()),
        "files": len(files),
        **_table_facts(path / "users"),
        **{key: value for key, value in asdict(bundle.manifest.prompt).items()},
        f"recall@{parity.k}": round(parity.recall[parity.k], 4),
        "plans": _plans(path),
        "checkpoint_sha256": bundle.manifest.provenance.get("checkpoint_sha256"),
        "adapter_sha256": bundle.manifest.provenance.get("adapter_sha256"),
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
        "table_bytes": sum(shard.bytes for shard in layout.shards),
        "shards": len(layout.shards),
        "tile_rows": layout.tile_rows,
        "bias": layout.bias,
        "generation": layout.generation,
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    from fllm_export.checkpoint.checkpoint import Checkpoint

    checkpoint = Checkpoint.load(path)
    facts = {key: value for key, value in asdict(checkpoint.spec).items() if value is not None}
    return {"kind": "checkpoint", **facts, "adapter": checkpoint.adapter is not None}


def _text(key: str, value: Any) -> str:
    if key == "plans":
        return ", ".join(value) or "none"
    return f"{value:,} ({byte_text(value)})" if key.endswith("bytes") else str(value)
