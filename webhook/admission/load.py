"""How many questions, and how many bytes of them, may be under way at once: of one address, and in all.

Connections have limits of their own (`webhook.server`), and each carries one question at a time. What a question takes is memory,
while its body arrives and until it is answered; nobody who reaches the port may take all of that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from webhook.errors import Busy

REQUESTS_PER_ADDRESS_MAX = 256
"""API servers may all come from one address, that of a gateway. One has 200 changing requests under way
(--max-mutating-requests-inflight), few of which are about pods."""
BYTES_PER_ADDRESS_MAX = 16 << 20
"""A question about a pod has 5 to 50 KB: so much is 256 of the larger ones, or five of the largest that there may be."""
BYTES_MAX = 24 << 20
"""Of all addresses. As Python's objects a body takes several times its bytes; the chart gives the process 256 MiB."""


class Load:
    """State of the event loop, without a lock."""

    def __init__(self) -> None:
        self._requests: defaultdict[str, int] = defaultdict(int)
        self._bytes: defaultdict[str, int] = defaultdict(int)

    @contextmanager
    def question(self, address: str) -> Iterator[Share]:
        """One question's part of the load, until it is answered. Raises Busy."""
        if self._requests[address] >= REQUESTS_PER_ADDRESS_MAX:
            raise Busy(f"{REQUESTS_PER_ADDRESS_MAX} questions of this address are under way already")
        self._requests[address] += 1
        share = Share(self, address)
        try:
            yield share
        finally:
            self._requests[address] -= 1
            self._bytes[address] -= share.size
            if not self._requests[address]:  # nothing is kept about an address that is gone
                del self._requests[address], self._bytes[address]

    def take(self, address: str, size: int) -> None:
        if self._bytes[address] + size > BYTES_PER_ADDRESS_MAX or sum(self._bytes.values()) + size > BYTES_MAX:
            raise Busy("the questions that are under way take as much memory as they may")
        self._bytes[address] += size


@dataclass
class Share:
    load: Load
    address: str
    size: int = 0

    def grow(self, size: int) -> None:
        """By so many bytes more. Raises Busy."""
        self.load.take(self.address, size)
        self.size += size
