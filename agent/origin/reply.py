"""What every answer of a registry has, however its bytes come: a head that is here, a body, and what a refusal says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from agent.http.client import Answer, Connection, ConnectionPool, TransferError
from agent.origin.destinations import NOT_ASKED
from agent.origin.documents import what_it_said
from agent.origin.throttle import retry_after
from agent.values.errors import OriginError

ERROR_BYTES_MAX = 64 << 10

_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}


class Reply:
    """An answer whose head is here and whose body is not read yet. Its caller closes it. Raises TransferError."""

    def __init__(self, pool: ConnectionPool, connection: Connection, answer: Answer, read: Callable[[int], bytes]) -> None:
        self.connection = connection
        """Its address is a proxy's, if the server is behind one. From it a big body is received."""
        self.status = answer.status
        self.headers = answer.headers
        self.length = answer.length
        """Bytes of the body; None when the server does not tell. The answer to a HEAD has a length, and no body."""
        self.read = read
        """All of a small body, of so many bytes at the most."""
        self.foreign = False
        """Whether another server answers than the one that was asked: a redirect led to it."""
        self.url = ""
        """Where the answer is from."""
        self.sent: tuple[str, ...] = ()
        """What it was told of who asks, which no message repeats: the Authorization, and header fields of a user's."""
        self._pool = pool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing more is read."""
        self._pool.give_back(self.connection)

    def refusal(self, who: str, repository: str, anonymous: bool, unknown: str = "UNKNOWN") -> OriginError:
        """What an answer that is no success says, with the server's own words. `unknown` is the OCI code for a 404.

        A pull without a credential hears a 403 as 401: runtimes send theirs only when they are asked for it.
        """
        try:
            said = what_it_said(self.read(ERROR_BYTES_MAX), *self.sent)
        except TransferError:
            said = ""
        status = self.status if 400 <= self.status < 500 and self.status != NOT_ASKED else 502
        status = 401 if status == 403 and anonymous else status
        words = f"{who} answered {self.status} for {repository}"
        pause = retry_after(self.headers.get("retry-after", "")) if self.status in (429, 503) else 0
        code = {**_CODES, 404: unknown}.get(status, "UNAVAILABLE")
        return OriginError(status, f"{words}: {said}" if said else words, code, retry_after=pause)
