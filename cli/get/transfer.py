"""One file from the first source that has it to its target: tried again where it breaks off, and never of two versions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Protocol

from agent.http.ratelimit import Pace, slowed
from cli.errors import CommandError
from cli.get.errors import BrokenOffError, GetError, GetStatus, NotByThisWayError, WrongDigestError
from cli.get.sources import FileSource, Incoming, Wanted
from cli.get.target import Target

TRIES_MAX = 4
"""In a row, of which none has gone on where the one before it ended: a file that changes for ever is not begun anew for ever."""
PAUSE_SECONDS = 0.25
"""Before the second try; each further pause is twice as long."""
BUFFER_BYTES = 1 << 20


class Watcher(Protocol):
    """Who shows how it goes."""

    def note(self, words: str) -> None: ...

    def opened(self, opened: Incoming) -> None: ...

    def came(self, position: int) -> None: ...


def transfer(
    sources: Sequence[FileSource],
    wanted: Wanted,
    target: Target,
    watcher: Watcher,
    pace: Pace | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Raises GetError, with what the last source said.

    Where the digest is wrong of what did not come from the last source at once, all of it is asked for there once more.
    """
    left, tries = list(sources), 0
    while True:
        before, start = target.position, 0
        try:
            with closing(left[0].open(wanted, target.position, target.validator)) as opened:
                start = opened.start
                _receive(opened, target, watcher, pace)
            target.finish()
            return
        except WrongDigestError as error:
            if len(left) == 1 and not start:
                raise
            watcher.note(f"{error}. It is asked for anew")
            left, tries = left[-1:], 0
        except (NotByThisWayError, BrokenOffError) as error:
            tries = 1 if target.position > before == start else tries + 1
            is_over = isinstance(error, NotByThisWayError) or tries >= TRIES_MAX
            if is_over and len(left) == 1:
                raise GetError(GetStatus.NETWORK, _named(wanted, error)) from None
            if is_over:
                watcher.note(f"{error}. The server itself is asked")
                del left[0]
                tries = 0
            else:
                sleep(PAUSE_SECONDS * 2 ** (tries - 1))


def _receive(opened: Incoming, target: Target, watcher: Watcher, pace: Pace | None) -> None:
    target.begin(opened.start, opened.validator)
    watcher.opened(opened)
    read_into = slowed(opened.read_into, pace) if pace else opened.read_into
    buffer = memoryview(bytearray(BUFFER_BYTES))
    while count := read_into(buffer):
        target.write(buffer[:count])
        watcher.came(target.position)
    if opened.size is not None and target.position != opened.size:
        raise BrokenOffError(f"{target.position} of {opened.size} bytes came")


def _named(wanted: Wanted, error: CommandError) -> str:
    url = wanted.url.partition("?")[0]
    return str(error) if url in str(error) else f"{url}: {error}"
