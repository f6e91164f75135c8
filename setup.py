"""Whether a wheel of Darner is compiled; everything else about it is in pyproject.toml.

With DARNER_COMPILE=1 the modules that are listed there become machine code by mypyc (docs/decisions/0015). That takes mypy and a
C compiler here, and nothing where the wheel is installed. Their sources stay beside them. Otherwise the wheel is pure Python.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from setuptools import Extension, setup


def extensions() -> list[Extension]:
    if not os.environ.get("DARNER_COMPILE"):
        return []
    from mypyc.build import mypycify

    names = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["darner"]["compiled"]
    paths = [name.replace(".", "/") + ".py" for name in names]
    # Of mypy's settings only these: `make check` looks at the rest. One group, whose modules call each other directly.
    found = mypycify(["--config-file=", *paths], opt_level="3", debug_level="0", group_name="darner")
    for extension in found:  # its calls of the interpreter go there directly, which is a twentieth of its time
        extension.extra_compile_args += ["-fno-plt", "-fno-semantic-interposition"]
    return found


setup(ext_modules=extensions())
