"""Small questions to registries, asked with httpx: manifests, tokens, lists, and whatever is asked by HEAD.

The connection is not httpx's to make. It comes from the pool that blobs have theirs from, made to an address that was checked,
with the server's name proven over TLS, and it serves one question: so one deadline holds for all that is sent and received on it,
however slowly a server sends. httpx follows no redirect, reads no variable of the environment and decodes no body here
(docs/decisions/0005).
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterator
from typing import Any

import httpcore
import httpx

from agent.http.client import Connection, StalledError, TransferError
from agent.http.pool import ConnectionPool
from agent.origin.destinations import DestinationError, Hop
from agent.origin.reply import Reply
from agent.values.address import Address

for library in ("httpx", "httpcore"):
    logging.getLogger(library).setLevel(logging.WARNING)  # below that they log whole URLs, and a signed one is a secret


_NEVER_USED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For httpcore, which would load one for each question. The pool has the real one; with this, which trusts nobody, a handshake
that was made after all would fail."""


class Questions:
    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def ask(self, hop: Hop, method: str, headers: dict[str, str], until: float) -> QuestionReply:
        """The answer of one server, if its head is here by `until` (monotonic), which its body has to keep as well."""
        network = _Network(self._pool, hop, until)
        client = httpx.Client(transport=_Transport(network), trust_env=False, follow_redirects=False)
        try:
            url = httpx.URL(scheme=hop.scheme, host=hop.host, port=hop.port)
            lines = {"Accept-Encoding": "identity", **headers}
            request = httpx.Request(method, url, headers=lines, extensions={"target": hop.target.encode("ascii")})
            return QuestionReply(client, client.send(request, stream=True), network.where)
        except (httpx.InvalidURL, httpcore.LocalProtocolError, UnicodeError) as error:
            client.close()
            raise TransferError(f"{hop.authority} cannot be asked: {error}") from None
        except httpcore.RemoteProtocolError as error:
            client.close()
            raise TransferError(f"{network.where} did not answer in HTTP: {error}") from None
        except httpx.RemoteProtocolError:  # httpx's own, for where it would go if it followed redirects
            client.close()
            raise DestinationError(502, "it redirects to a URL that is none") from None
        except BaseException:
            client.close()
            raise


class QuestionReply(Reply):
    """Closing it ends the connection."""

    def __init__(self, client: httpx.Client, response: httpx.Response, where: Address) -> None:
        response.headers.encoding = "latin-1"  # whatever bytes a header has, a redirect's URL passes them on
        headers = dict(response.headers)
        # h11 has checked that a length is a number. It counts for nothing where chunks are announced (RFC 9112 section 6.3).
        length = int(headers["content-length"]) if "content-length" in headers and "transfer-encoding" not in headers else None
        super().__init__(where, response.status_code, headers, length)
        self._client = client
        self._response = response

    def close(self) -> None:
        self._response.close()
        self._client.close()

    def read(self, bytes_max: int) -> bytes:
        body = bytearray()
        try:
            for part in self._response.iter_raw():
                body += part
                if len(body) > bytes_max:
                    raise TransferError(f"{self.where} sends more than {bytes_max} bytes")
        except httpcore.RemoteProtocolError as error:
            raise TransferError(f"{self.where} broke off: {error}") from None
        return bytes(body)


class _Transport(httpx.BaseTransport):
    """One HTTP/1.1 connection over a network of ours; httpx's own transports take none."""

    def __init__(self, network: _Network) -> None:
        self._network = network

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=b"/")
        asked = httpcore.Request(request.method, url, headers=request.headers.raw, extensions=request.extensions)
        connection = httpcore.HTTPConnection(asked.url.origin, _NEVER_USED, network_backend=self._network)
        answer = connection.handle_request(asked)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions)

    def close(self) -> None:
        self._network.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class _Network(httpcore.NetworkBackend):
    """What httpcore takes for the network: the one server of a hop, at an address that was checked."""

    def __init__(self, pool: ConnectionPool, hop: Hop, until: float) -> None:
        self._pool = pool
        self._hop = hop
        self._until = until
        self._connection: Connection | None = None

    @property
    def where(self) -> Address:
        return self._connection.where if self._connection else self._hop.place.addresses[0]

    def connect_tcp(self, *_: Any, **__: Any) -> httpcore.NetworkStream:
        self._connection = self._pool.connect(self._hop.place, self._until)
        return _Stream(self._connection, self._until)

    def close(self) -> None:
        if self._connection:
            self._pool.give_back(self._connection)
            self._connection = None


class _Stream(httpcore.NetworkStream):
    """Bytes of one connection, all of them before one deadline: what httpcore would wait for each of them does not count."""

    def __init__(self, connection: Connection, until: float) -> None:
        self._connection = connection
        self._until = until

    def read(self, max_bytes: int, *_: Any, **__: Any) -> bytes:
        try:
            self._wait_until_deadline()
            return self._connection.sock.recv(max_bytes)
        except TimeoutError:
            raise StalledError(f"{self._connection.where} did not answer in time") from None
        except OSError as error:
            raise TransferError(f"{self._connection.where} did not answer in HTTP: {error}") from None

    def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        if not buffer:  # the end of a request without a body
            return
        try:
            self._wait_until_deadline()
            self._connection.sock.sendall(buffer)
        except TimeoutError:
            raise StalledError(f"{self._connection.where} does not take a request") from None
        except OSError as error:
            raise TransferError(f"{self._connection.where} cannot be asked: {error}") from None

    def start_tls(self, *_: Any, server_hostname: str | None = None, **__: Any) -> httpcore.NetworkStream:
        """TLS was started by the pool, which tries the next address where a handshake fails; here the name is compared."""
        if server_hostname != self._connection.server_name:
            raise TransferError(f"{self._connection.where} has not proven to be {server_hostname}")
        return self

    def close(self) -> None:
        """The network's business, when the question is over."""

    def _wait_until_deadline(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.sock.settimeout(left)
