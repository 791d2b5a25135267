"""``fllm-export serve``: a bundle or a user table over HTTP."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from fllm_export.cli.options import DIRECTORY, encoder_for, encoder_option, engine_option, threads_option
from fllm_export.cli.output import Output, json_option, pass_output
from fllm_export.extras import require
from fllm_export.server.options import ListenOptions, ServerOptions, SourceOptions

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option per field of ``ServerOptions``, collected in one argument ``limits``."""

    # The options that the command has already travel along with it.
    @functools.wraps(command)
    def collected(**arguments: Any) -> Any:
        chosen = {limit.name: arguments.pop(limit.name) for limit in fields(ServerOptions)}
        return command(limits=ServerOptions(**chosen), **arguments)

    wrapped: Callable[..., Any] = collected
    for limit in reversed(fields(ServerOptions)):
        option = click.option(
            "--" + limit.name.replace("_", "-"),
            type=int if isinstance(limit.default, int) else float,
            default=limit.default,
            show_default=True,
            help=limit.metadata["help"],
        )
        wrapped = option(wrapped)
    return wrapped


@click.command()
@click.argument("source", type=DIRECTORY)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port. 0 takes any free one."
)
@click.option("--tls-certificate", "certificate", type=_FILE, help="PEM file with the certificate chain, for HTTPS.")
@click.option("--tls-key", "key", type=_FILE, help="PEM file with the private key.")
@click.option(
    "--token-file", type=_FILE, help="File with the bearer token that requests need (default: FLLM_SERVER_TOKEN)."
)
@click.option("--traces", is_flag=True, help="Send OpenTelemetry spans to where the OTEL_* variables say.")
@click.option("--operating-point", type=_FILE, help="The operating point that a sweep picked.")
@click.option("--resident", is_flag=True, help="Read the rows into memory instead of mapping the files.")
@_limit_options
@engine_option
@encoder_option
@threads_option
@json_option
@pass_output
def serve(
    output: Output,
    source: Path,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    token_file: Path | None,
    traces: bool,
    operating_point: Path | None,
    resident: bool,
    limits: ServerOptions,
    engine: str | None,
    encoder: str | None,
    threads: int | None,
) -> None:
    """Serve SOURCE, a bundle or a user table, over HTTP.

    POST /v1/topk answers item texts, token ids or item vectors. SIGHUP opens SOURCE again. SIGTERM ends the server
    after the last request is answered.
    """
    served = require("fllm_export.server.run", "server")

    def say(text: str) -> None:
        output.say(f"fllm-export: {text}")
        sys.stderr.flush()

    def announce(url: str) -> None:
        output.result({"url": url}, url)
        sys.stdout.flush()

    opened = SourceOptions(source, engine, encoder_for(source, encoder), threads, operating_point, resident)
    where = ListenOptions(host, port, certificate, key)
    served.run(opened, where, limits, token_file=token_file, traces=traces, say=say, announce=announce)
