"""The life of a process: settings in, one line when it is ready, an orderly end on SIGTERM, one clear line when it cannot be.

The agent and the supernode share it; so does whatever else `darner` starts.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from agent.errors import UsageError
from agent.settings import load

log = logging.getLogger(__name__)

Settings = TypeVar("Settings", contravariant=True)


class Service(Protocol):
    """What a process runs."""

    def start(self) -> str:
        """Begin, and say in one line what is being served where."""

    def stop(self) -> None:
        """End in order, in a few seconds."""


def run(cls: type[Settings], program: str, build: Callable[[Settings], Service], argv: Sequence[str]) -> int:
    """The exit status: 0 after SIGTERM or SIGINT, 1 when the settings, a port or a directory cannot be used."""
    try:
        settings = load(cls, program, argv, os.environ)
        _log_to_stderr(getattr(settings, "log_level", "info"))
        service = build(settings)
    except UsageError as error:
        print(error, file=sys.stderr)  # noqa: T201 (the process's own words to its operator)
        return 1
    threading.excepthook = _end_the_process
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    print(service.start(), flush=True)  # noqa: T201
    ended.wait()
    service.stop()
    return 0


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    for chatty in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _end_the_process(args: threading.ExceptHookArgs) -> None:
    """A thread that died unseen would leave a process that only looks alive; ended, it is started again."""
    log.critical(
        "the thread %s died: %s; the process ends", args.thread and args.thread.name, args.exc_value, exc_info=args.exc_value
    )
    logging.shutdown()
    os._exit(70)
