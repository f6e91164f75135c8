"""One buffer for each thread that moves bytes, used again and again: nothing is held whole, and nothing allocated on the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from agent.http.ratelimit import ReadInto

BUFFER_BYTES = 256 << 10
"""A piece of the shortest kind in one go, and little enough to stay in a core's own cache while it is hashed and written."""

_buffers = threading.local()


def buffer() -> memoryview:
    """This thread's buffer. What is in it is gone when the thread asks for it again."""
    if not hasattr(_buffers, "view"):
        _buffers.view = memoryview(bytearray(BUFFER_BYTES))
    view: memoryview = _buffers.view
    return view


def chunks(read_into: ReadInto, bytes_max: int) -> Iterator[memoryview]:
    """What `read_into` gives, in this thread's one buffer: each chunk is gone when the next is taken."""
    view = buffer()
    while bytes_max > 0 and (count := read_into(view[: min(bytes_max, len(view))])):
        bytes_max -= count
        yield view[:count]
