"""A client that verifies and keeps: skopeo, whose library is CRI-O's and podman's, so it asks, checks and writes as they do.

It keeps nothing that a later pull would find, and what it wrote is gone when it has ended.
"""

from __future__ import annotations

import shutil
import time

from hack.bench.puller import Door
from hack.lab import Host

_PULL_SECONDS_MAX = 300


def copy(host: Host, door: Door) -> float:
    """The seconds of one pull on that host, into a directory of the lab. Raises LabError if it does not get all of the image."""
    source = f"docker://{door.address}:{door.port}{door.path.removeprefix('/v2')}:{door.tag}"
    target = host.lab.directory / f"{host.name}-skopeo-{door.port}-{door.tag}"
    argv = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", source, f"dir:{target}"]
    began = time.monotonic()
    try:
        host.run(argv, timeout_seconds=_PULL_SECONDS_MAX)
        return time.monotonic() - began
    finally:
        shutil.rmtree(target, ignore_errors=True)
