"""The life of a process: settings in, one line when it is ready, an orderly end on SIGTERM, one clear line when it cannot be.

The agent and the supernode share it; so does whatever else `darner` starts.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from agent.build import announce
from agent.config import load
from agent.values.errors import UsageError

log = logging.getLogger(__name__)

ENDING = (signal.SIGTERM, signal.SIGINT)
USAGE_STATUS = 1
DIED_STATUS = 70
"""EX_SOFTWARE of sysexits.h: the process found a mistake of its own."""

Settings = TypeVar("Settings", contravariant=True)


def steady(wall: Callable[[], float] = time.time) -> Callable[[], float]:
    """Unix time that goes on evenly from now: when somebody sets the wall clock, no interval measured with this one changes.

    What is written down with it means something to the next process all the same.
    """
    ahead = wall() - time.monotonic()
    return lambda: time.monotonic() + ahead


class Service(Protocol):
    """What a process runs."""

    def start(self) -> str:
        """Begin, and say in one line what is being served where."""

    def stop(self) -> None:
        """End in order, in a few seconds."""


def run(cls: type[Settings], program: str, build: Callable[[Settings], Service], argv: Sequence[str]) -> int:
    """The exit status: 0 after SIGTERM or SIGINT, 1 when the settings, a port, a directory or the disk cannot be used."""
    threading.excepthook = _end_the_process
    ending = EndSignals()
    try:
        settings = load(cls, program, argv, os.environ)
        log_to_stderr(getattr(settings, "log_level", "info"), getattr(settings, "log_format", "text"))
        announce(program.removeprefix("darner "))
        _take_all_descriptors()
        service = build(settings)
        ready = service.start()
    except UsageError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{program}: {error}")
    print(ready, flush=True)  # noqa: T201 (the process's own words to its operator)
    ending.wait()
    service.stop()
    return 0


class EndSignals:
    """SIGTERM and SIGINT, from when this is made, by the main thread.

    The system gives a signal to whichever thread comes by first. That may be a busy one, and then the main thread, which alone
    runs Python's handlers, is not woken. So it waits for what Python writes to a pipe in any thread (signal.set_wakeup_fd).
    """

    def __init__(self) -> None:
        self._received, written = os.pipe()
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written)
        for number in ENDING:
            signal.signal(number, lambda *_: None)

    def wait(self) -> None:
        """Until one of them has come. It may have come before."""
        while os.read(self._received, 1)[0] not in ENDING:
            continue


def _refuse(words: str) -> int:
    print(words, file=sys.stderr)  # noqa: T201
    return USAGE_STATUS


class LogFormatter(logging.Formatter):
    """One line for each record, whatever strangers' text is in it: what would begin a line or steer a terminal is escaped.

    The lines of a traceback follow indented, so that none of them looks like a record.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indented(super().formatStack(stack_info))


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for what collects logs: time (RFC 3339), level, logger, message, and the fields of the record.

    Everything but ASCII is escaped, so that no stranger's text begins a line. A traceback is a field.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def escaped(text: str) -> str:
    """The text with `\\n`, `\\x1b`, `\\u2028` and the like in place of what is not printable."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _indented(lines: str) -> str:
    return "\n".join(f"    {escaped(line)}" for line in lines.split("\n"))


LOG_FORMATS: dict[str, Callable[[], logging.Formatter]] = {
    "text": lambda: LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"),
    "json": JsonFormatter,
}


def log_to_stderr(level: str, form: str = "text") -> None:
    """The log of all three processes: one line a record, on standard error, as text or as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(LOG_FORMATS[form]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # what it says of its start is said in the one line


def _take_all_descriptors() -> None:
    """Every connection takes one, and the usual soft limit is 1024; the hard limit is what the administrator means."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError) as error:
        log.warning("the number of open files stays as it is: %s", error)


def _end_the_process(args: threading.ExceptHookArgs) -> None:
    """A thread that died unseen would leave a process that only looks alive; ended, it is started again."""
    log.critical(
        "the thread %s died: %s; the process ends", args.thread and args.thread.name, args.exc_value, exc_info=args.exc_value
    )
    logging.shutdown()
    os._exit(DIED_STATUS)
