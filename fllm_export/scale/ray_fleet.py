"""Ray as the transport to the machines that hold the parts of a table: plain actors, or deployments of Ray Serve."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray

from fllm_export.scale.part_host import PartHost, PartOptions, PartRequest, Reply

_CALLS_AT_ONCE = 16


class _ActorReply:
    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def result(self, *, timeout_s: float | None) -> Reply:
        reply: Reply = ray.get(self._reference, timeout=timeout_s)
        return reply


class ActorFleet:
    """Plain Ray actors, each with a part open. Ray starts an actor again that has died.

    A call to an actor takes less time than one through Ray Serve, and nothing balances load between replicas: they
    take turns.

    Args:
        replicas: by part, the handles of its actors.
    """

    def __init__(self, replicas: Sequence[Sequence[Any]]) -> None:
        self.parts = len(replicas)
        self.replicas = replicas
        self._turns = [itertools.cycle(actors) for actors in replicas]

    @classmethod
    def start(cls, options: PartOptions, replicas: int = 1, resources: dict[str, Any] | None = None) -> ActorFleet:
        """Start actors for all parts of a table, on the cluster that the process is connected to.

        Args:
            options: how parts are opened; the number in ``options.part`` does not count.
            replicas: actors per part.
            resources: options of Ray for each actor, for example ``num_cpus`` or ``scheduling_strategy``.
        """
        count = options.part[1]
        host = ray.remote(PartHost).options(
            max_restarts=-1, max_concurrency=_CALLS_AT_ONCE, **({"num_cpus": 1} | (resources or {}))
        )
        return cls(
            [[host.remote(replace(options, part=(part, count))) for _ in range(replicas)] for part in range(count)]
        )

    def ask(self, part: int, asked: PartRequest) -> _ActorReply:
        """Send a request to the next replica of a part."""
        return _ActorReply(next(self._turns[part]).answer.remote(asked))


class ServeFleet:
    """Deployments of Ray Serve, one per part, each with any number of replicas.

    Ray Serve takes the less loaded of two replicas, and starts replicas again that have died.

    Args:
        handles: by part, the handle of its deployment.
    """

    def __init__(self, handles: Sequence[Any]) -> None:
        self.parts = len(handles)
        self._handles = handles

    def ask(self, part: int, asked: PartRequest) -> Any:
        """Send a request to some replica of a part."""
        return self._handles[part].answer.remote(asked)
