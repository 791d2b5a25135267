"""What a server opens where the rows are on other machines: the encoder here, the user table there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fllm_export.engines.names import ENCODERS
from fllm_export.engines.registry import Source, engine_name
from fllm_export.environment import thread_count
from fllm_export.errors import UsageError
from fllm_export.manifest import TABLE_FOLDER
from fllm_export.runtime.item_model import encoder_name
from fllm_export.runtime.opened_bundle import BundleOptions
from fllm_export.runtime.places import table_of
from fllm_export.runtime.runtime import Runtime
from fllm_export.runtime.user_table import UserTable
from fllm_export.scale.sharded_engine import Fleet, ShardedEngine, ShardedOptions
from fllm_export.server.options import SourceOptions
from fllm_export.server.served import Opens, Served


def open_sharded_table(directory: Path, fleet: Fleet, options: ShardedOptions | None = None) -> UserTable:
    """Open a user table whose parts a fleet answers for. It has the methods of every :class:`UserTable`.

    Args:
        directory: of the table; its ``table.json`` is read here, and no rows.
        fleet: who answers for the parts.
        options: what to do about parts that do not answer.

    Raises:
        BundleError: the table is missing or damaged.
    """
    return UserTable(ShardedEngine(directory, fleet, options), Source(directory, None, 1, {}))


@dataclass(frozen=True)
class _ShardedBundleOptions(BundleOptions):
    fleet: Fleet | None = None
    losses: ShardedOptions | None = None

    def open_users(self, root: Path) -> UserTable:
        assert self.fleet is not None
        return open_sharded_table(root / TABLE_FOLDER, self.fleet, self.losses)


def open_sharded_runtime(
    bundle: Path,
    fleet: Fleet,
    options: ShardedOptions | None = None,
    *,
    encoder: str | None = None,
    threads: int | None = None,
) -> Runtime:
    """Open a bundle whose encoder runs here and whose user table a fleet answers for.

    Raises:
        BundleError: the bundle is incomplete or damaged.
        HardwareError: the encoder cannot run here.
        UsageError: there is no encoder of that name.
    """
    where = encoder_name(encoder, "native")
    if where not in ENCODERS:
        raise UsageError(f"there is no encoder {where!r}", expected="one of " + ", ".join(ENCODERS))
    chosen = _ShardedBundleOptions(
        bundle, engine_name(None), where, thread_count(threads), {}, fleet=fleet, losses=options
    )
    return Runtime(chosen.open(), chosen)


def opens(fleet: Fleet, options: ShardedOptions) -> Opens:
    """Return what a :class:`fllm_export.server.service.Service` opens its source with."""
    return partial(_open, fleet, options)


def _open(fleet: Fleet, losses: ShardedOptions, source: SourceOptions) -> Served:
    if table_of(source.path) == source.path:
        served = Served(source.path, open_sharded_table(source.path, fleet, losses), None)
    else:
        runtime = open_sharded_runtime(source.path, fleet, losses, encoder=source.encoder, threads=source.threads)
        served = Served(source.path, runtime.users, runtime)
    served.check()
    return served
