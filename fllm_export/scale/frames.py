"""Messages on a TCP connection: two lengths, a header and a body; and the proof that both sides know one key."""

from __future__ import annotations

import hmac
import secrets
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

from fllm_export.scale.wire import WireError

HEADER_MAX = 1 << 20
BODY_MAX = 1 << 30
KEY_BYTES = 32

_LENGTHS = struct.Struct("<4sIQ")
_MAGIC = b"FLP2"
_NONCE_BYTES = 32
_PROOF_BYTES = 32


@dataclass(frozen=True)
class Address:
    """Where a process that holds a part takes requests.

    Attributes:
        host: name or number of the machine.
        port: of TCP.
        key: secret that both sides prove to know; it never travels on the connection itself.
    """

    host: str
    port: int
    key: bytes

    def __repr__(self) -> str:
        return f"Address({self.host}:{self.port})"


class Channel:
    """One connection. One thread at a time uses it.

    Args:
        connection: it is closed with the channel.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection

    @classmethod
    def to(cls, address: Address, timeout_s: float) -> Channel:
        """Connect, and let both sides prove that they know the key.

        Raises:
            OSError: nobody takes the connection within the time.
            WireError: the other side does not know the key.
        """
        until = time.monotonic() + timeout_s
        channel = cls(socket.create_connection((address.host, address.port), timeout_s))
        try:
            ours = secrets.token_bytes(_NONCE_BYTES)
            channel._write(_MAGIC + ours, until)
            answer = channel._read(_NONCE_BYTES + _PROOF_BYTES, until)
            theirs, proof = bytes(answer[:_NONCE_BYTES]), answer[_NONCE_BYTES:]
            if not hmac.compare_digest(proof, _proof(address.key, b"part", ours, theirs)):
                raise WireError("the process at the address of a part does not know its key")
            channel._write(_proof(address.key, b"router", ours, theirs), until)
        except BaseException:
            channel.close()
            raise
        return channel

    def admit(self, key: bytes, timeout_s: float) -> None:
        """Do the other side's half of :meth:`to`.

        Raises:
            OSError: the connection ends, or the time.
            WireError: whoever has connected does not know the key.
        """
        until = time.monotonic() + timeout_s
        hello = bytes(self._read(len(_MAGIC) + _NONCE_BYTES, until))
        if not hello.startswith(_MAGIC):
            raise WireError("whoever has connected speaks another protocol")
        theirs, ours = hello[len(_MAGIC) :], secrets.token_bytes(_NONCE_BYTES)
        self._write(ours + _proof(key, b"part", theirs, ours), until)
        if not hmac.compare_digest(self._read(_PROOF_BYTES, until), _proof(key, b"router", theirs, ours)):
            raise WireError("whoever has connected does not know the key")

    def send(self, header: bytes, body: bytes, timeout_s: float | None = None) -> None:
        """Send a message.

        Raises:
            OSError: the connection is broken, or the time ends.
            WireError: the message is too large.
        """
        _check(len(header), len(body))
        until = None if timeout_s is None else time.monotonic() + timeout_s
        self._write(b"".join([_LENGTHS.pack(_MAGIC, len(header), len(body)), header, body]), until)

    def receive(self, timeout_s: float | None = None) -> tuple[bytes, bytearray]:
        """Wait for a message and return its header and body.

        Raises:
            OSError: the connection ends, or the time.
            WireError: what comes is not a message, or is too large.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        magic, header, body = _LENGTHS.unpack(self._read(_LENGTHS.size, until))
        if magic != _MAGIC:
            raise WireError("what came is not a message")
        _check(header, body)
        return bytes(self._read(header, until)), self._read(body, until)

    def close(self) -> None:
        """End the connection, also for a thread that waits on it."""
        with suppress(OSError):  # the other side has ended it
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _write(self, data: bytes, until: float | None) -> None:
        self._socket.settimeout(_left(until))
        self._socket.sendall(data)

    def _read(self, length: int, until: float | None) -> bytearray:
        found = bytearray(length)
        view = memoryview(found)
        while view:
            self._socket.settimeout(_left(until))
            count = self._socket.recv_into(view)
            if not count:
                raise ConnectionResetError("the other side has ended the connection")
            view = view[count:]
        return found


def _left(until: float | None) -> float | None:
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for the message is over")
    return left


def _check(header: int, body: int) -> None:
    if header > HEADER_MAX or body > BODY_MAX:
        raise WireError(f"a message of {header} + {body} bytes; expected at most {HEADER_MAX} + {BODY_MAX}")


def _proof(key: bytes, side: bytes, router_nonce: bytes, part_nonce: bytes) -> bytes:
    return hmac.digest(key, side + router_nonce + part_nonce, "sha256")
