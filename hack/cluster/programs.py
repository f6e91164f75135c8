"""The programs of a cluster: where they are, how they are started on a host, and what they said last.

They are built by build.sh and hack/containerd, each once on a machine. A program that is started belongs to nobody: it lives
until its host is killed, whoever started it, and is found again by the namespace that it lives in, never by its name.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hack.cluster.layout import ClusterError, Layout
from hack.cluster.network import NAMESPACES
from hack.lab.runtime import Runtime

HERE = Path(__file__).resolve().parent
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUILD_SECONDS_MAX = 3600
LAST_WORDS_LINES = 12
DEFAULT_KUBERNETES = "v1.36.3"


@dataclass(frozen=True)
class Programs:
    """Folders of programs."""

    etcd: Path
    coredns: Path
    kubernetes: Path

    @classmethod
    def of(cls, kubernetes: str) -> Programs:
        return cls(_built("etcd"), _built("coredns"), _built(kubernetes_module(kubernetes)))


def containerd(version: str) -> Path:
    """The folder of containerd, its shim and ctr; `1.6` is Debian's, `2` is built."""
    return Runtime(version).programs


def kubernetes_module(version: str) -> str:
    """The Go module from which this version is built. Raises ClusterError if another one is pinned."""
    versions = {found: path.name for path in HERE.glob("go/kubernetes-*") if (found := _pinned(path / "go.mod"))}
    if version not in versions:
        raise ClusterError(f"Kubernetes {version} is not pinned in hack/cluster/go; there are {', '.join(sorted(versions))}")
    return versions[version]


def start(layout: Layout, host: str, name: str, argv: Sequence[object], environment: Mapping[str, str] | None = None) -> None:
    """Starts a program that goes on. It gets this environment only, and says what it says into NAME.log."""
    entering = ["setsid", "--fork", "nsenter", f"--net={NAMESPACES / layout.namespace(host)}", "--"]
    with (layout.logs / f"{name}.log").open("ab") as log:
        subprocess.run(
            [*entering, *map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": SYSTEM_PATH, **(environment or {})},
            check=True,
        )


def last_words(logs: Path) -> str:
    """The end of each log in a directory."""
    said = [(log, log.read_text(errors="replace").splitlines()[-LAST_WORDS_LINES:]) for log in sorted(logs.glob("*.log"))]
    return "\n".join(f"--- {log}\n" + "\n".join(lines) for log, lines in said if lines)


@cache
def _built(part: str) -> Path:
    # Its messages are for whoever waits for the minutes that it takes.
    done = subprocess.run([HERE / "build.sh", part], stdout=subprocess.PIPE, text=True, timeout=BUILD_SECONDS_MAX, check=False)
    if done.returncode:
        raise ClusterError(f"{part} cannot be built")
    return Path(done.stdout.strip())


def _pinned(module: Path) -> str:
    """The version of Kubernetes that a go.mod requires."""
    required = [line.split() for line in module.read_text().splitlines()]
    return next((words[1] for words in required if len(words) >= 2 and words[0] == "k8s.io/kubernetes"), "")
