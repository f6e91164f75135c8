"""What a pod of Darner's sees from where it is: names of supernodes, their channels, the clock, the store's disk, its own state.

`darner doctor` and `darner explain` send this file's text to the Python in the pod (`kubectl exec`), and read the JSON that it
prints. So it stands alone: nothing is imported but the standard library, whatever version of Darner runs there.

    python3 probe.py [NAME:PORT ...]
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CONNECT_SECONDS_MAX = 3.0
CHANNELS_AT_ONCE_MAX = 8
ANSWER_BYTES_MAX = 4 << 20
SETTINGS = ("DARNER_STORE_QUOTA", "DARNER_STORE_FREE")
RECEIVED = "received_bytes"


def told(channels: list[str]) -> dict[str, Any]:
    """All of it, as JSON can say it. What cannot be found out is left out, or says why."""
    with ThreadPoolExecutor(CHANNELS_AT_ONCE_MAX) as threads:
        found = list(threads.map(_looked_up, channels))
    addresses = {name: known for name, known, _ in found}
    answered = {name: trouble for name, known, trouble in found if known}
    disk = os.statvfs(os.path.dirname(os.environ.get("DARNER_STORE", "/")) or "/")
    return {
        "addresses": addresses,
        "answered": answered,
        "clock": time.time(),
        "disk": {"bytes": disk.f_blocks * disk.f_frsize, "free": disk.f_bavail * disk.f_frsize},
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "state": _json_of(_get("/api/v1/state")),
        "metrics": [line for line in _get("/metrics").splitlines() if RECEIVED in line and not line.startswith("#")],
    }


def _looked_up(channel: str) -> tuple[str, list[str], str]:
    """The name, its addresses, and why the channel there was not reached; empty if it was."""
    name, _, port = channel.rpartition(":")
    try:
        known = sorted({str(item[4][0]) for item in socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)})
    except OSError:
        return name, [], ""
    try:
        socket.create_connection((known[0], int(port)), CONNECT_SECONDS_MAX).close()
    except OSError as error:
        return name, known, str(error)
    return name, known, ""


def _get(path: str) -> str:
    """From the process of this container, which answers its own machine at the address that it listens at."""
    host, _, port = os.environ.get("DARNER_HTTP_LISTEN", "127.0.0.1:65003").rpartition(":")
    host = host.strip("[]")
    loopback = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
    try:
        connection = http.client.HTTPConnection(loopback.get(host, host), int(port), timeout=CONNECT_SECONDS_MAX)
        try:
            connection.request("GET", path)
            with connection.getresponse() as answer:
                return answer.read(ANSWER_BYTES_MAX).decode(errors="replace") if answer.status == 200 else ""
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException):
        return ""


def _json_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


if __name__ == "__main__":
    os.environ["RES_OPTIONS"] = "timeout:1 attempts:1"  # the resolver would take minutes over names where nobody answers
    json.dump(told(sys.argv[1:]), sys.stdout)
