"""Small questions to registries, asked with httpx: manifests, tokens, lists, and whatever is asked by HEAD.

The connection is not httpx's to make. It comes from the pool that blobs have theirs from, made to an address that was checked,
with the server's name proven over TLS, and it serves one question: so one deadline holds for all that is sent and received on it,
however slowly a server sends. httpx follows no redirect, reads no variable of the environment and decodes no body here
(docs/decisions/0005).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

# Where rich is installed, for Darner's own command line, httpx would load it for one of httpx's, on every node.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import httpcore  # noqa: E402
import httpx  # noqa: E402

from agent.http.client import Answer, Connection, TransferError  # noqa: E402
from agent.http.wire import announced_length, joined  # noqa: E402
from agent.origin.destinations import DestinationError, Hop  # noqa: E402

for library in ("httpx", "httpcore"):
    logging.getLogger(library).setLevel(logging.WARNING)  # below that they log whole URLs, and a signed one is a secret


def ask(connection: Connection, hop: Hop, method: str, headers: dict[str, str]) -> tuple[Answer, Callable[[int], bytes]]:
    """The answer of one server, and what reads its body; `connection.until` holds for both. Raises TransferError."""
    client = httpx.Client(transport=_Transport(connection), trust_env=False, follow_redirects=False)
    try:
        url = httpx.URL(scheme=hop.scheme, host=hop.host, port=hop.port)
        lines = {"Accept-Encoding": "identity", **headers}
        request = httpx.Request(method, url, headers=lines, extensions={"target": hop.target.encode("ascii")})
        response = client.send(request, stream=True)
    except (httpx.InvalidURL, httpcore.LocalProtocolError, UnicodeError):  # whose words may show what proves who asks
        raise TransferError(f"{hop.authority} cannot be asked: its URL, or what it is to be sent, is none of HTTP") from None
    except httpcore.RemoteProtocolError as error:
        raise TransferError(f"{connection.where} did not answer in HTTP: {error}") from None
    except httpx.RemoteProtocolError:  # httpx's own, for where it would go if it followed redirects
        raise DestinationError(502, "it redirects to a URL that is none") from None
    found = joined(response.headers.raw)

    def read(bytes_max: int) -> bytes:
        body = bytearray()
        try:
            for part in response.iter_raw():
                body += part
                if len(body) > bytes_max:
                    raise TransferError(f"{connection.where} sends more than {bytes_max} bytes")
        except httpcore.RemoteProtocolError as error:
            raise TransferError(f"{connection.where} broke off: {error}") from None
        return bytes(body)

    return Answer(response.status_code, found, announced_length(found)), read


class _Transport(httpx.BaseTransport):
    """HTTP/1.1 over a connection of ours; httpx's own transports make theirs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=b"/")
        asked = httpcore.Request(request.method, url, headers=request.headers.raw, extensions=request.extensions)
        answer = httpcore.HTTP11Connection(asked.url.origin, _Stream(self._connection)).handle_request(asked)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions)


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()


class _Stream(httpcore.NetworkStream):
    """What httpcore takes for the network: how long it would wait does not count, the connection has its deadline."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, max_bytes: int, *_: Any, **__: Any) -> bytes:
        return self._connection.receive(max_bytes)

    def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        if buffer:  # the end of a request without a body is none
            self._connection.send(buffer)

    def close(self) -> None:
        """The business of the pool that the connection is from."""
