"""One run of a credential provider's program, within limits of time and output.

It is run as the kubelet runs it: without a shell, a question on its standard input, an answer on its standard output, and with
the agent's environment besides its own. What it writes to standard error is not read, for it may hold what nobody shall read.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO, cast

from agent.origin.credential_config import ProviderError

OUTPUT_BYTES_MAX = 1 << 20
RUN_SECONDS_MAX = 60.0
"""As long as the kubelet lets it run."""


def run(command: Sequence[str], environment: Mapping[str, str], question: bytes, seconds: float = RUN_SECONDS_MAX) -> bytes:
    """What the program writes. Raises ProviderError; then nothing that it started in its session is left."""
    until = time.monotonic() + seconds
    try:
        process = subprocess.Popen(  # noqa: S603 (programs of the node's administrator)
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise ProviderError(f"it cannot be run: {error}") from None
    with process:
        try:
            stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
            with contextlib.suppress(BrokenPipeError), stdin:  # it need not read what it is asked
                stdin.write(question)
            output = _read(stdout.fileno(), until)
            status = process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill(process)
            raise ProviderError("it did not end in time") from None
        except BaseException:
            _kill(process)
            raise
    if status:
        raise ProviderError(f"it ended with status {status}; run it by hand to see what it says")
    return output


def _read(descriptor: int, until: float) -> bytes:
    output, poll = bytearray(), select.poll()
    poll.register(descriptor, select.POLLIN)
    while poll.poll(max(0.0, until - time.monotonic()) * 1000):
        part = os.read(descriptor, 64 << 10)
        if not part:
            return bytes(output)
        output += part
        if len(output) > OUTPUT_BYTES_MAX:
            raise ProviderError(f"it writes more than {OUTPUT_BYTES_MAX} bytes")
    raise ProviderError("it did not end in time")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Its session's first group, whose number nobody else can have before it is waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
