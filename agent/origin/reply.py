"""What every answer of a registry has, however its bytes come: a head that is here, a small body, and what a refusal says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from agent.http.client import TransferError
from agent.origin.destinations import NOT_ASKED
from agent.origin.documents import what_it_said
from agent.values.address import Address
from agent.values.errors import OriginError

ERROR_BYTES_MAX = 64 << 10

_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}


class Reply(ABC):
    """An answer whose head is here and whose body is not read yet. Its caller closes it. Raises TransferError."""

    def __init__(self, where: Address, status: int, headers: dict[str, str], length: int | None) -> None:
        self.where = where
        """The address that answers; a proxy's, if the server is behind one."""
        self.status = status
        self.headers = headers
        self.length = length
        """Bytes of the body; None when the server does not tell. The answer to a HEAD has a length, and no body."""
        self.foreign = False
        """Whether another server answers than the one that was asked: a redirect led to it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End the connection. Nothing more is read."""

    @abstractmethod
    def read(self, bytes_max: int) -> bytes:
        """All of a small body."""

    def refusal(self, who: str, repository: str, anonymous: bool, unknown: str = "UNKNOWN") -> OriginError:
        """What an answer that is no success says, with the server's own words. `unknown` is the OCI code for a 404.

        A pull without a credential hears a 403 as 401: runtimes send theirs only when they are asked for it.
        """
        try:
            said = what_it_said(self.read(ERROR_BYTES_MAX))
        except TransferError:
            said = ""
        status = self.status if 400 <= self.status < 500 and self.status != NOT_ASKED else 502
        status = 401 if status == 403 and anonymous else status
        words = f"{who} answered {self.status} for {repository}"
        return OriginError(status, f"{words}: {said}" if said else words, {**_CODES, 404: unknown}.get(status, "UNAVAILABLE"))
