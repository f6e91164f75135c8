"""Somebody who types commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli.errors import ExitCode

DARNER = Path(sys.executable).with_name("darner")
COMMAND_SECONDS_MAX = 100


class Person:
    """Somebody with a kubeconfig, in a directory of their own."""

    def __init__(self, kubeconfig: Path, home: Path) -> None:
        self.kubeconfig, self.home = kubeconfig, home

    def types(self, *argv: str, program: str = "darner", **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig), **environment}
        command = [DARNER.with_name(program), *argv]
        done = subprocess.run(
            command, env=variables, cwd=self.home, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS_MAX
        )
        assert "Traceback" not in done.stderr
        return done

    def sees(self, *argv: str) -> Any:
        done = self.types(*argv, "-o", "json")
        assert done.returncode == ExitCode.FINE, done.stderr + done.stdout
        return json.loads(done.stdout)
