"""A bundle on Ray Serve: ``serve run fllm_export.scale.serve_app:app source=bundle/ parts=4 replicas=2``.

It takes the same HTTP requests as ``fllm-export serve`` (docs/guides/ray.md).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from fllm_export.engines.registry import NativeOptions
from fllm_export.runtime.places import table_of
from fllm_export.scale.part_host import PartOptions
from fllm_export.scale.ray_fleet import RayPart, ServeFleet
from fllm_export.scale.reload import Reloaded, reload_all, reloaded
from fllm_export.scale.sharded_engine import OnLoss, ShardedOptions
from fllm_export.scale.sharded_source import opens
from fllm_export.server.access import bearer, read_token
from fllm_export.server.app import create_app
from fllm_export.server.options import ServerOptions, SourceOptions
from fllm_export.server.service import Access, Service


class Arguments(BaseModel):
    """What ``serve run`` takes as ``name=value``; all machines reach ``source`` by the same path."""

    model_config = ConfigDict(extra="forbid")

    source: Path = Field(description="A bundle or a user table.")
    parts: int = Field(1, ge=1, description="Parts of the table, each of which a deployment holds.")
    replicas: int = Field(1, ge=1, description="Replicas of each part.")
    routers: int = Field(1, ge=1, description="Replicas of what encodes texts and merges answers.")
    on_loss: OnLoss = Field("partial", description="What becomes of an answer without a part.")
    retries: int = Field(1, ge=0, description="How often a part that was lost is asked again.")
    timeout_s: float = Field(30.0, gt=0, description="Seconds to wait for a part where a request has no budget.")
    engine: str | None = None
    encoder: str | None = None
    threads: int | None = Field(None, ge=1, description="Threads of a search, and processors that a replica reserves.")
    resident: bool = False
    token_file: Path | None = None


@serve.deployment
class Part(RayPart):
    """A replica that holds one part of a table.

    Args:
        options: how the part is opened.
    """

    async def reload(self) -> Reloaded:
        """Open what is at the path now, while searches go on."""
        return await reloaded(partial(asyncio.to_thread, self._host.reload))


@serve.deployment(max_ongoing_requests=1000)
@serve.ingress()
class Router:
    """A replica that encodes texts, asks all parts and merges what they found, behind the server's routes.

    Args:
        arguments: of the application.
        parts: handles of the deployments of the parts.
    """

    async def __init__(self, arguments: Arguments, *parts: Any) -> None:  # type: ignore[misc]  # as Ray Serve wants it
        losses = ShardedOptions(arguments.on_loss, arguments.retries, arguments.timeout_s)
        token = read_token(arguments.token_file)
        self._service = Service(
            SourceOptions(arguments.source, None, arguments.encoder, arguments.threads),
            ServerOptions(),
            # The parts have one path open, so no request names another.
            Access() if token is None else Access(bearer(token)),
            opens=opens(ServeFleet(parts), losses),
        )
        self._parts = parts
        await self._service.load()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the routes of the server."""
        return create_app(self._service, self._reload_all)

    async def reload(self) -> Reloaded:
        """Move on to what is at the path now."""
        return await reloaded(self._service.reload)

    async def _reload_all(self, path: Path | None) -> int:
        """Reload all replicas. The service lets no request name a path."""
        here = serve.get_replica_context()
        return await reload_all(self._parts, serve.get_deployment_handle(here.deployment, here.app_name))


def _deployment(made: Any) -> Any:
    """Return a deployment as what the decorators have made of its class."""
    return made


def app(arguments: Arguments | dict[str, Any]) -> serve.Application:
    """Return the application: a deployment per part, and one that asks them."""
    arguments = Arguments.model_validate(arguments)
    source = arguments.source.absolute()
    native: NativeOptions = {"resident": True} if arguments.resident else {}
    whole = PartOptions(table_of(source), (0, arguments.parts), arguments.engine, arguments.threads)
    deployment = _deployment(Part).options(
        num_replicas=arguments.replicas, ray_actor_options={"num_cpus": arguments.threads or 1}
    )
    parts = [
        deployment.options(name=f"part-{number}").bind(replace(whole, part=(number, arguments.parts), native=native))
        for number in range(arguments.parts)
    ]
    router = _deployment(Router).options(name="router", num_replicas=arguments.routers)
    bound: serve.Application = router.bind(arguments.model_copy(update={"source": source}), *parts)
    return bound
