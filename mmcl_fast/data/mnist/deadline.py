"""Opening an address so that all of its answer, headers included, has one deadline.

A socket's own timeout is that of a single byte: a server that sends one a second never ends.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def opened_within(
    request: urllib.request.Request, timeout_s: float, deadline_s: float
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a request; its connection is shut down at the deadline.

    Args:
        request: Of an http or https address.
        timeout_s: Longest wait for the connection, and for the next bytes of the answer.
        deadline_s: Longest time from now until the caller is done with the answer.

    Raises: TimeoutError: the deadline passed. OSError, http.client.HTTPException: as `urlopen`.
    """
    held: list[socket.socket] = []
    late = threading.Event()

    def shut_down() -> None:
        late.set()
        for connection in held:
            with suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline_s), shut_down)
    timer.daemon = True
    timer.start()
    try:
        with _opener(held, late).open(request, timeout=timeout_s) as response:
            yield response
    except (OSError, http.client.HTTPException) as error:
        if late.is_set():
            raise TimeoutError("not done within the time for a file") from error
        raise
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError("not done within the time for a file")


def _opener(held: list[socket.socket], late: threading.Event) -> urllib.request.OpenerDirector:
    """An opener like `urlopen`'s whose connections are appended to `held`."""

    def keep(connection: http.client.HTTPConnection) -> None:
        held.append(connection.sock)
        if late.is_set():
            raise TimeoutError

    class Http(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            keep(self)

    class Https(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            keep(self)

    class HttpHandler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(Http, request)

    class HttpsHandler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(Https, request, context=ssl.create_default_context())

    return urllib.request.build_opener(HttpHandler, HttpsHandler)


__all__ = ["opened_within"]
