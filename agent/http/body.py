"""One buffer for each thread that moves bytes, used again and again: nothing is held whole, and nothing allocated on the way."""

from __future__ import annotations

import threading

BUFFER_BYTES = 256 << 10
"""A piece of the shortest kind in one go, and little enough to stay in a core's own cache while it is hashed and written."""

_buffers = threading.local()


def buffer() -> memoryview:
    """This thread's buffer. What is in it is gone when the thread asks for it again."""
    if not hasattr(_buffers, "view"):
        _buffers.view = memoryview(bytearray(BUFFER_BYTES))
    view: memoryview = _buffers.view
    return view
