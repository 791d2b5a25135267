"""How the server is run: limits that keep it answering, and how requests share passes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fllm_export import arguments


def _limit(default: float, help: str, least: float = 1) -> Any:
    return field(default=default, metadata={"help": help, "least": least})


@dataclass(frozen=True)
class ServerOptions:
    """Limits and waiting times; each one is an option of ``fllm-export serve`` with the same name.

    Attributes:
        max_body_bytes: bytes of a request's body; a longer one is answered 413.
        max_items: items per request.
        max_answer_users: items times k per request.
        max_text_chars: characters per text.
        max_waiting_items: items that are in the server at once; a request beyond is answered 429.
        max_connections: open connections; beyond, the one that has waited longest without a request is closed.
        max_batch: items per pass over the table.
        max_wait_ms: milliseconds that the first request of a pass waits for others to share it.
        passes: passes that are prepared at once; the engine ``native`` merges them again where it can.
        encode_workers: requests whose texts are encoded at once.
        client_timeout_s: seconds that a client has to send a request's head, then its body, and to read on.
        keep_alive_s: seconds that a connection stays open without a request.
        answer_timeout_s: seconds after which a request that still waits for its pass is answered 503.
        stop_timeout_s: seconds that requests have to end once the server was told to stop.

    Raises:
        UsageError: a value is of another type, or too small.
    """

    max_body_bytes: int = _limit(4 << 20, "Bytes of a request's body.")
    max_items: int = _limit(256, "Items per request.")
    max_answer_users: int = _limit(200_000, "Items times k per request.")
    max_text_chars: int = _limit(100_000, "Characters per text.")
    max_waiting_items: int = _limit(1024, "Items that are in the server at once. Requests beyond are answered 429.")
    max_connections: int = _limit(1000, "Open connections. Beyond, the one that is idle for longest is closed.")
    max_batch: int = _limit(64, "Items per pass over the table.")
    max_wait_ms: float = _limit(0.0, "Milliseconds that a request waits for others to share its pass.", 0)
    passes: int = _limit(3, "Passes that are prepared at once.")
    encode_workers: int = _limit(2, "Requests whose texts are encoded at once.")
    client_timeout_s: float = _limit(10.0, "Seconds that a client has to send a request, and to read its answer.", 0.01)
    keep_alive_s: float = _limit(15.0, "Seconds that a connection stays open without a request.", 0.01)
    answer_timeout_s: float = _limit(30.0, "Seconds after which a request that still waits is answered 503.", 0.01)
    stop_timeout_s: float = _limit(60.0, "Seconds that requests have to end once the server is told to stop.", 0.01)

    def __post_init__(self) -> None:
        for limit in fields(self):
            value, least = getattr(self, limit.name), limit.metadata["least"]
            if isinstance(limit.default, int):
                arguments.integer(value, limit.name, least=int(least))
            else:
                arguments.real(value, limit.name, least=least)


@dataclass(frozen=True)
class SourceOptions:
    """What is served, and how it is opened.

    Attributes:
        path: a bundle or a user table, or a symbolic link to one.
        engine: see :meth:`fllm_export.Runtime.open`.
        encoder: likewise; for a bundle alone.
        threads: likewise.
        operating_point: file of an operating point, or None.
        resident: whether rows are read into memory of the process, engine ``native`` alone.
    """

    path: Path
    engine: str | None = None
    encoder: str | None = None
    threads: int | None = None
    operating_point: Path | None = None
    resident: bool = False


@dataclass(frozen=True)
class ListenOptions:
    """Where the server listens.

    Attributes:
        host: address.
        port: 0 takes any free one.
        certificate: PEM file with the certificate chain; with it the server speaks TLS.
        key: PEM file with its private key, where that is not in the same file.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    certificate: Path | None = None
    key: Path | None = None
