"""From where `darner get` has a file, as all of it but the sources themselves knows them.

Each source opens one version of the file, from the byte on that is wanted next or from the first one, and says what it cannot do:
`NotByThisWayError` where another source may, `BrokenOffError` where it may go on itself, GetError where nobody can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Wanted:
    url: str
    digest: str = ""
    """`sha256:HEX`, or ""."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)


class Incoming(Protocol):
    """Bytes of one version of a file, from `start` on."""

    start: int
    size: int | None
    """Of the whole; None when nobody knows."""
    validator: str

    def read_into(self, buffer: memoryview) -> int:
        """0 at the end. Raises BrokenOffError."""
        ...

    def close(self) -> None: ...

    def sources(self) -> dict[str, int]:
        """Bytes by where the node had them from, as far as is known."""
        ...


class FileSource(Protocol):
    def open(self, wanted: Wanted, start: int, validator: str) -> Incoming: ...

    def close(self) -> None: ...
