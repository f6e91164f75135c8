"""The agent's errors. Each knows its OCI error code, its HTTP status and whose fault it is, so that handlers map none of them."""

from __future__ import annotations

import json
from typing import Self

REGISTRY_AT_FAULT = "Registry At Fault"
"""The reason phrase of an answer with an error that is the registry's own (RFC 9112, section 4). A runtime repeats it to the
kubelet, also that of an answer to HEAD, which has no body; by it the webhook knows a registry's fault from a node's."""


class DarnerError(Exception):
    """Anything that Darner says to a person or a program: one line, nothing secret in it."""

    code = "UNKNOWN"
    """Error code, of the OCI distribution specification 1.1 ("Error Codes") where it has one that fits."""
    status = 500
    phrase = ""
    """The reason phrase of the answer."""

    def again(self) -> Self:
        """The same error without its traceback, for whoever keeps it or raises it in another thread.

        A traceback keeps everything alive that its frames know: a blob that kept its own error would never be closed.
        """
        copy = type(self).__new__(type(self), *self.args)
        copy.__dict__.update(self.__dict__)
        return copy


class UsageError(DarnerError):
    """The operator's fault: a flag, an environment variable or a file that cannot be used. Ends the process with status 1."""


class RequestError(DarnerError):
    """The client's fault: a request that no registry would answer."""

    code = "UNSUPPORTED"
    status = 400

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class OriginError(DarnerError):
    """The origin registry's own refusal (its status is passed on), or its silence (502, 504)."""

    code = "UNAVAILABLE"

    def __init__(
        self,
        status: int,
        message: str,
        code: str = "UNAVAILABLE",
        certain: bool = True,
        retry_after: int = 0,
        asked: bool = True,
    ) -> None:
        """`certain` is false where another may be at fault as well: nobody answered, or the node itself failed.

        `retry_after` are the seconds for which the registry wants not to be asked; 0 when it did not say. `asked` is false where
        the registry was not asked, for a limit of this process: that says nothing of the registry.
        """
        super().__init__(message)
        self.asked = asked
        self.status = status
        self.code = code
        self.phrase = REGISTRY_AT_FAULT if certain and not self.answered else ""
        self.retry_after = retry_after

    @property
    def answered(self) -> bool:
        """Whether the origin said this itself. What it did not say itself, another way to it may mend."""
        return 400 <= self.status < 500 and self.status not in (408, 429)

    @property
    def failed_there(self) -> bool:
        """Whether the registry was asked and could not say: what it said earlier may be used, as such."""
        return self.asked and not self.answered


class RangesError(OriginError):
    """The registry sends whole blobs only: no part of one can be had from it."""


class SourceError(DarnerError):
    """A node's fault, or the network's: a piece that did not come, with the verdict for the scheduler (see
    agent.swarm.messages)."""

    def __init__(self, verdict: int, message: str) -> None:
        super().__init__(message)
        self.verdict = verdict


class SupersededError(DarnerError):
    """Nobody's fault: another source was given the piece that this one was bringing."""


class StoreError(DarnerError):
    """The disk's fault: full, failing or read-only."""


class DigestError(DarnerError):
    """Whoever sent the bytes is at fault: they do not have the digest that they were asked for by."""

    code = "DIGEST_INVALID"
    status = 502


def oci_body(error: DarnerError) -> bytes:
    """The error as the OCI distribution specification writes it."""
    return json.dumps({"errors": [{"code": error.code, "message": str(error)}]}).encode()
