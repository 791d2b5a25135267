"""A small user table, the service on it, and a server as a program."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import UserTable

if any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn", "httptools", "uvloop")):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 table of 3,000 users x 16."""
    from .serving import DIM

    path = tmp_path_factory.mktemp("served") / "users"
    UserTable.create(path, np.random.default_rng(1).standard_normal((3000, DIM)).astype(np.float32), quant="int8")
    return path


@pytest.fixture(scope="session")
def table(users: Path) -> UserTable:
    return UserTable.open(users, threads=1)


@pytest.fixture
def serve(users: Path) -> Callable[..., None]:
    """Runs a coroutine function on the application and the service of the table, or of another path."""
    from fllm_export.server.app import create_app
    from fllm_export.server.options import ServerOptions, SourceOptions
    from fllm_export.server.service import Service

    @asynccontextmanager
    async def running(path: Path, arguments: dict[str, Any], limits: dict[str, Any]) -> AsyncIterator[Any]:
        service = Service(SourceOptions(path, threads=1), ServerOptions(**limits), **arguments)
        try:
            await service.load()
            yield service
        finally:
            await service.close()

    def run(
        work: Callable[[Any, Any], Coroutine[Any, Any, None]],
        path: Path | None = None,
        arguments: dict[str, Any] | None = None,
        **limits: Any,
    ) -> None:
        async def whole() -> None:
            async with running(path or users, arguments or {}, limits) as service:
                await work(create_app(service), service)

        asyncio.run(whole())

    return run


@pytest.fixture(scope="module")
def program(users: Path) -> Iterator[Any]:
    """A running server on the table, with short times for clients."""
    from .serving import Program

    made = Program(users, "--client-timeout-s", "1.5", "--max-body-bytes", "400000", "--max-connections", "100")
    made.wait_for("ready")
    yield made
    assert made.stop() == 0
