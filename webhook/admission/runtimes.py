"""Which container runtimes pull from an agent as they are: plain HTTP on 127.0.0.1. Pure; docs/runtimes.md has what was tried."""

from __future__ import annotations

import re

CRIO_WITHOUT_LOOPBACK = (1, 35)
"""From here on CRI-O asks no registry in plain HTTP that its configuration does not list, not even on 127.0.0.1."""


def pulls_from_agents(runtime: str) -> bool | None:
    """By a node's `containerRuntimeVersion`, such as `cri-o://1.35.0`. None for one that nobody has tried."""
    name, _, version = runtime.partition("://")
    if name in ("containerd", "docker"):
        return True
    if name != "cri-o":
        return None
    match = re.match(r"v?(\d{1,4})\.(\d{1,4})", version)
    return bool(match and (int(match[1]), int(match[2])) < CRIO_WITHOUT_LOOPBACK)
