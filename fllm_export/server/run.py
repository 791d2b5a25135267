"""The server as a program: everything that ``fllm-export serve`` needs, in one call."""

from __future__ import annotations

from pathlib import Path

from fllm_export.runtime.places import table_of
from fllm_export.server.access import bearer, read_token
from fllm_export.server.listener import Say, listen
from fllm_export.server.options import ListenOptions, ServerOptions, SourceOptions
from fllm_export.server.service import Access, Service
from fllm_export.server.tracing import Tracing


def run(
    source: SourceOptions,
    where: ListenOptions,
    options: ServerOptions,
    *,
    token_file: Path | None = None,
    traces: bool = False,
    say: Say,
    announce: Say,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        source: what is served.
        where: address.
        options: limits.
        token_file: file with the token that requests need.
        traces: whether spans are sent.
        announce: told the URL, once the server listens.
        say: told what a person wants to know.

    Raises:
        UsageError: the address is in use, or a file cannot be read.
        HardwareError: the packages for tracing are not installed.
        BundleError: the source is not a bundle or a user table; nothing listens yet.
        FllmError: what is to be served cannot be opened, or does not answer.
    """
    table_of(source.path)
    token = read_token(token_file)
    access = Access() if token is None else Access(bearer(token), other_paths=True)
    tracing = Tracing.by_environment() if traces else None
    listen(lambda: Service(source, options, access, tracing), where, options, say, announce)
