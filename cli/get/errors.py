"""How `darner get` ends: with wget's exit codes (GNU wget 1.21, "Exit Status"), so that scripts need no other."""

from __future__ import annotations

from enum import IntEnum

from cli.errors import CommandError


class GetStatus(IntEnum):
    PROBLEM = 1
    """What none of the others says: a wrong digest, a file that changed while it was written to a pipe."""
    USAGE = 2
    FILE = 3
    NETWORK = 4
    CERTIFICATE = 5
    CREDENTIAL = 6
    PROTOCOL = 7
    REFUSED = 8


class GetError(CommandError):
    def __init__(self, status: GetStatus, message: str) -> None:
        super().__init__(message)
        self.exit_code = status


class WrongDigestError(GetError):
    """All bytes came, and they are not the file. The target is as if none had come."""

    def __init__(self, message: str) -> None:
        super().__init__(GetStatus.PROBLEM, message)


class NotByThisWayError(CommandError):
    """Not this source's to give; the next one may have it."""


class BrokenOffError(CommandError):
    """Bytes stopped coming. What has come is kept, and the same source may go on."""


def refused(status: int, message: str) -> GetError:
    """What a server's own refusal means."""
    return GetError({400: GetStatus.USAGE, 401: GetStatus.CREDENTIAL}.get(status, GetStatus.REFUSED), message)
