"""Another clock for a process of Darner's: the wall clock that Python tells it is so many seconds ahead, or behind.

The product has no setting for that. Python imports a module `sitecustomize` before anything else, and the one in this folder
puts its own `time.time` in place of Python's. Only a process that was given this folder has it.
"""

from __future__ import annotations

import os
from pathlib import Path

AHEAD_SECONDS = "DARNER_LAB_CLOCK_SECONDS"


def environment(ahead_seconds: float, python_path: str) -> dict[str, str]:
    """What a process is started with so that its clock is ahead; nothing when it is right."""
    if not ahead_seconds:
        return {}
    return {AHEAD_SECONDS: str(ahead_seconds), "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), python_path])}
