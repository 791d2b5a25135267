"""A reload on Ray Serve: every replica opens what is at the path now, and those that do not are named."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import serve

from fllm_export.errors import BudgetError, FllmError

_ANSWER_S = 600.0
"""How long a replica may take to open what is at the path."""

_PAUSE_S = 0.5
_ATTEMPTS = 10
_SHOWN = 300


@dataclass(frozen=True)
class Reloaded:
    """What became of a reload in a replica.

    Attributes:
        replica: its deployment and its name.
        found: the generation that it answers from now, or why it did not reload.
    """

    replica: str
    found: int | FllmError


async def reloaded(work: Callable[[], Awaitable[int]]) -> Reloaded:
    """Return what becomes of a reload in this replica of Ray Serve.

    Args:
        work: reloads, and returns the generation.
    """
    where = serve.get_replica_context().replica_id
    name = f"{where.deployment_id.name} {where.unique_id}"
    try:
        return Reloaded(name, await work())
    except FllmError as error:
        return Reloaded(name, error)
    except Exception as error:  # the other replicas' answers count none the less
        return Reloaded(name, BudgetError(_words(error)))


async def reload_all(parts: Sequence[Any], routers: Any) -> int:
    """Let all replicas of the parts open what is at the path now, and then all routers.

    Where a replica of a part fails, no router moves on. Where a router fails, others may have. Repeating the call is
    safe.

    Args:
        parts: handles of the deployments of the parts, whose method ``reload`` returns a :class:`Reloaded`.
        routers: handle of the deployment of the routers, likewise.

    Returns:
        The generation that all of them answer from.

    Raises:
        FllmError: a replica failed, of the kind of the first error. It names each replica and the reason.
    """
    opened = [each for told in await asyncio.gather(*map(_told, parts)) for each in told]
    _check(opened, "no router has moved on")
    moved = await _told(routers)
    _check(moved, "the other routers have moved on")
    generations = sorted({each.found for each in [*opened, *moved] if isinstance(each.found, int)})
    if len(generations) > 1:
        raise BudgetError(
            f"replicas have opened the generations {', '.join(map(str, generations))}",
            expected="one generation",
            fix="Publish, wait until that has ended, and reload again",
        )
    return generations[0]


async def _told(handle: Any) -> list[Reloaded]:
    """Ask all replicas of a deployment. Those that do not answer are told like those that fail."""
    name, missing = handle.deployment_name, 0
    for _ in range(_ATTEMPTS):
        running = await asyncio.to_thread(_running, handle)
        try:
            answers = await handle.broadcast("reload").results_async(timeout_s=_ANSWER_S, return_exceptions=True)
        except Exception as error:  # whatever Ray Serve raises, none of them is known to have reloaded
            answers = [error]
        told = [each if isinstance(each, Reloaded) else Reloaded(name, BudgetError(_words(each))) for each in answers]
        missing = running - len(answers)
        if missing <= 0:
            return told
        await asyncio.sleep(_PAUSE_S)  # a replica that has just started, or has just died
    return [*told, Reloaded(name, BudgetError(f"{missing} of {running} replicas were not reached"))]


def _running(handle: Any) -> int:
    """Return how many replicas of a deployment Ray Serve has."""
    found = serve.status().applications[handle.app_name].deployments[handle.deployment_name].replica_states
    return int(found.get("RUNNING", 0))


def _check(told: Sequence[Reloaded], meanwhile: str) -> None:
    failed = [(each.replica, each.found) for each in told if isinstance(each.found, FllmError)]
    if not failed:
        return
    words = "; ".join(f"{replica}: {str(error)[:_SHOWN].rstrip('.')}" for replica, error in failed)
    raise type(failed[0][1])(
        f"{len(failed)} of {len(told)} replicas did not reload, and {meanwhile} ({words})",
        expected="every replica opens what is at the path",
        fix="Mend what is named, and reload again",
    )


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_SHOWN]}"
