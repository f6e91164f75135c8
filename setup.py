"""Whether a wheel of Darner is compiled; everything else about it is in pyproject.toml.

With DARNER_COMPILE=1 the modules below become machine code by mypyc (docs/decisions/0015), which takes mypy and a C compiler here and
nothing where the wheel is installed. Their sources stay beside them. Without it the wheel is pure Python and does the same, slower.
"""

from __future__ import annotations

import os

from setuptools import Extension, setup

COMPILED = (
    "agent/pieces.py",
    "supernode/booking.py",
    "supernode/events.py",
    "supernode/matching.py",
    "supernode/scheduler.py",
    "supernode/swarm.py",
)
"""What the supernode's processor is spent on. One group, so that they call each other without Python in between."""


def extensions() -> list[Extension]:
    if not os.environ.get("DARNER_COMPILE"):
        return []
    from mypyc.build import mypycify

    # No settings but these: pyproject.toml asks for all that `make check` looks at.
    return mypycify(["--config-file=", *COMPILED], opt_level="3", debug_level="0", group_name="darner")


setup(ext_modules=extensions())
