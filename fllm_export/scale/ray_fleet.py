"""Ray places, supervises and replaces the processes that hold the parts of a table; searches reach them directly.

A call to a Ray actor takes longer than merging a search, so Ray is asked for addresses alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError

from fllm_export.scale.frames import Address
from fllm_export.scale.part_fleet import PartFleet
from fllm_export.scale.part_host import PartHost, PartOptions
from fllm_export.scale.part_server import PartServer

_ANSWER_S = 5.0
_OTHERS_S = 0.5


class RayPart:
    """What runs in a process of Ray: a part, and the port that searches reach it by.

    Args:
        options: how the part is opened.
    """

    def __init__(self, options: PartOptions) -> None:
        self._host = PartHost(options)
        self._server = PartServer(self._host, ray.util.get_node_ip_address())

    def address(self) -> Address:
        """Return where the part takes requests, and the key that it expects."""
        return self._server.address


class ActorFleet(PartFleet):
    """Plain Ray actors, each with a part open. Ray starts an actor again that has died.

    Args:
        replicas: by part, the handles of its actors, which are of :class:`RayPart`.
    """

    def __init__(self, replicas: Sequence[Sequence[Any]]) -> None:
        super().__init__([partial(_of_actors, actors) for actors in replicas])
        self.replicas = replicas

    @classmethod
    def start(cls, options: PartOptions, replicas: int = 1, resources: dict[str, Any] | None = None) -> ActorFleet:
        """Start actors for all parts of a table, on the cluster that the process is connected to.

        Args:
            options: how parts are opened; the number in ``options.part`` does not count.
            replicas: actors per part.
            resources: options of Ray for each actor, for example ``num_cpus`` or ``scheduling_strategy``.
        """
        count = options.part[1]
        host = ray.remote(RayPart).options(max_restarts=-1, **({"num_cpus": 1} | (resources or {})))
        # Where the cluster is too small for all, each part gets one before any gets a second.
        directory = options.directory.absolute()  # the actors have another working directory
        parts = [replace(options, directory=directory, part=(part, count)) for part in range(count)]
        started = [[host.remote(part) for part in parts] for _ in range(replicas)]
        return cls(list(zip(*started, strict=True)))


class ServeFleet(PartFleet):
    """Deployments of Ray Serve, one per part, each with any number of replicas.

    Ray Serve starts replicas again that have died.

    Args:
        handles: by part, the handle of its deployment, whose replicas have the method ``address`` of
            :class:`RayPart`.
    """

    def __init__(self, handles: Sequence[Any]) -> None:
        super().__init__([partial(_of_deployment, handle) for handle in handles])


def _of_actors(actors: Sequence[Any]) -> list[Address]:
    """Return the addresses of the actors that answer; one that is being started is waited for if alone."""
    asked = [actor.address.remote() for actor in actors]
    ray.wait(asked, num_returns=1, timeout=_ANSWER_S)
    ready, _ = ray.wait(asked, num_returns=len(asked), timeout=_OTHERS_S)
    return [address for reference in ready if (address := _address(reference)) is not None]


def _address(reference: Any) -> Address | None:
    try:
        found: Address = ray.get(reference)
    except RayError:  # this actor is gone
        return None
    return found


def _of_deployment(handle: Any) -> list[Address]:
    found = handle.broadcast("address").results(timeout_s=_ANSWER_S, return_exceptions=True)
    return [address for address in found if isinstance(address, Address)]
