"""A process that holds a part takes requests on a TCP port of its own, beside what Ray asks it."""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from contextlib import suppress

from fllm_export.scale.frames import KEY_BYTES, Address, Channel
from fllm_export.scale.part_host import PartHost
from fllm_export.scale.wire import WireError, read_request, reply_bytes

CONNECTIONS_MAX = 256
"""Connections at once, each with one request at a time."""

_LOG = logging.getLogger("fllm_export.scale")
_ADMISSION_S = 5.0
_PAUSE_S = 0.1
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
"""Seconds, seconds and probes: after 90 s, connections of a machine that is gone end too."""


class PartServer:
    """Answers requests for a part, a thread per connection, so that searches at the same time share passes.

    Who connects proves first that it knows the key, which is made here and handed out with the address.

    Args:
        host: what answers.
        interface: address of this machine that the port is opened on, and no other.

    Raises:
        OSError: no port can be opened there.
    """

    def __init__(self, host: PartHost, interface: str) -> None:
        self._host = host
        self._listener = socket.create_server((interface, 0), family=_family(interface), backlog=CONNECTIONS_MAX)
        self.address = Address(interface, self._listener.getsockname()[1], secrets.token_bytes(KEY_BYTES))
        self._channels: set[Channel] = set()
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._accept, name="part-accept", daemon=True).start()

    def close(self) -> None:
        """Open no more connections, and end those that are open."""
        with self._lock:
            self._closed = True
            channels = list(self._channels)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        for channel in channels:
            channel.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._closed:
                    return
                _LOG.warning("a connection was not taken: %s", error)
                time.sleep(_PAUSE_S)  # out of file descriptors, for example
                continue
            channel = Channel(connection)
            with self._lock:
                full = self._closed or len(self._channels) >= CONNECTIONS_MAX
                if not full:
                    self._channels.add(channel)
            if full:
                channel.close()
                continue
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEP_ALIVE:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
            threading.Thread(target=self._serve, args=(channel,), name="part-connection", daemon=True).start()

    def _serve(self, channel: Channel) -> None:
        try:
            channel.admit(self.address.key, _ADMISSION_S)
            while True:
                asked = read_request(*channel.receive())
                try:
                    reply = reply_bytes(self._host.answer(asked))
                except Exception as error:  # a bug or a limit of the system: the router counts the part as lost
                    _LOG.exception("a request to a part failed")
                    reply = reply_bytes(error)
                channel.send(*reply)
        except WireError as error:
            _LOG.warning("a connection was ended: %s", error)
        except OSError:
            pass  # the router has ended the connection
        finally:
            channel.close()
            with self._lock:
                self._channels.discard(channel)


def _family(interface: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in interface else socket.AF_INET
