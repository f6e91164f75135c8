"""A node's container runtime: a containerd of its own, which pulls as the kubelet asks it to (CRI) and runs commands with runc.

Two programs: Debian's containerd 1.6, and containerd 2 from hack/containerd. Each runs in its own mount and process namespace
with its own /run, so that its mounts, shims and containers are gone when it is killed, whatever they were doing.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hack.lab import stargz
from hack.lab.network import Host
from hack.lab.process import LabError, wait_until

FETCH_BUFFER_BYTES = 8 << 20
_BUILD = Path(__file__).resolve().parent.parent / "containerd/build.sh"
_BUILD_SECONDS_MAX = 900
_PULL_SECONDS_MAX = 120
_containers = itertools.count()

# Where the capability SYS_RESOURCE is missing nobody may lower an oom_score_adj, and runc would die of it.
_CONFIG = {
    "1.6": """\
version = 2
root = '{directory}/root'
state = '/run/containerd'
[plugins.'io.containerd.internal.v1.opt']
path = '{directory}/opt'
[plugins.'io.containerd.grpc.v1.cri']
restrict_oom_score_adj = true
[plugins.'io.containerd.grpc.v1.cri'.cni]
bin_dir = '{directory}/cni'
conf_dir = '{directory}/cni'
""",
    "2": """\
version = 3
root = '{directory}/root'
state = '/run/containerd'
[plugins.'io.containerd.internal.v1.opt']
path = '{directory}/opt'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{directory}/cni']
conf_dir = '{directory}/cni'
""",
}
# Images for the kubelet are fetched by the transfer service, or by the CRI plugin's own client; each reads its own section only.
_PARALLEL = {
    "transfer service": """\
[plugins.'io.containerd.transfer.v1.local']
max_concurrent_downloads = 8
concurrent_layer_fetch_buffer = {buffer}
""",
    "own client": """\
[plugins.'io.containerd.cri.v1.images']
use_local_image_pull = true
max_concurrent_downloads = 8
concurrent_layer_fetch_buffer = {buffer}
""",
}
# The kubelet's images in a snapshotter of its own, which is told what it needs to fetch layers by itself.
_STARGZ = """\
[proxy_plugins.stargz]
type = 'snapshot'
address = '{socket}'
[plugins.'io.containerd.cri.v1.images']
use_local_image_pull = true
snapshotter = 'stargz'
disable_snapshot_annotations = false
"""
# An administrator's directory, in which each registry may have a file of its own.
_CERTS_D = {
    "1.6": """\
[plugins.'io.containerd.grpc.v1.cri'.registry]
config_path = '{directory}/certs.d'
""",
    "2": """\
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '{directory}/certs.d'
""",
}


@dataclass(frozen=True)
class Runtime:
    """Which containerd, and how it fetches layers."""

    version: str
    """`1.6` is Debian's package, `2` is what hack/containerd builds."""
    parallel: str = ""
    """Who fetches layers that are larger than `FETCH_BUFFER_BYTES` in parallel ranges of that size: `transfer service` (the
    default of containerd 2.2) or `own client` of the CRI plugin. Empty: one GET for each layer."""
    lazy: bool = False
    """Layers are mounted by stargz-snapshotter, and need not be there. Of containerd 2 only."""

    def __str__(self) -> str:
        how = [*(["parallel", *self.parallel.split()] if self.parallel else []), *(["lazy"] if self.lazy else [])]
        return "-".join(["containerd", self.version, *how])

    @property
    def programs(self) -> Path:
        return built_programs() if self.version == "2" else Path("/usr/bin")

    def config(self, directory: Path) -> str:
        parallel = _PARALLEL[self.parallel] if self.parallel else ""
        lazy = _STARGZ if self.lazy else ""
        return (_CONFIG[self.version] + parallel + lazy).format(
            directory=directory, buffer=FETCH_BUFFER_BYTES, socket=stargz.SOCKET
        )


class Containerd:
    """The containerd of one host."""

    def __init__(self, host: Host, runtime: Runtime, plain_registries: Iterable[str] = (), *, certs_d: bool = False) -> None:
        """`plain_registries` are pulled from in plain HTTP, as an administrator would have it. `certs_d`: there is one."""
        self._host, self._runtime = host, runtime
        self._directory = host.lab.directory / f"{host.name}-{runtime}"
        self._directory.mkdir()
        config = self._directory / "config.toml"
        text = runtime.config(self._directory)
        self.certs_d = self._directory / "certs.d"
        if certs_d:
            self.certs_d.mkdir()
        for registry in plain_registries:
            hosts = self.certs_d / registry / "hosts.toml"
            hosts.parent.mkdir(parents=True)
            hosts.write_text(f'server = "http://{registry}"\n[host."http://{registry}"]\ncapabilities = ["pull", "resolve"]\n')
        if self.certs_d.exists():
            text += _CERTS_D[runtime.version].format(directory=self._directory)
        config.write_text(text)
        self._path = f"{runtime.programs}:{os.environ['PATH']}:/usr/sbin:/sbin"
        script = 'mount -t tmpfs none /run && exec "$0" --config "$1" --log-level debug'
        isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
        self.process = host.start(str(runtime), [*isolated, runtime.programs / "containerd", config], {"PATH": self._path})
        self.process.wait_until(self._answers)
        if runtime.lazy:
            serve = [stargz.program(), "serve", self._directory / "stargz", stargz.SOCKET]
            self.snapshotter = host.start("stargz", self._entering(serve), {"PATH": self._path})
            self.snapshotter.wait_until(self._snapshotter_answers)

    def pull(self, image: str, credentials: str = "", timeout_seconds: float = _PULL_SECONDS_MAX) -> None:
        """As the kubelet does: ask the runtime, which fetches and unpacks. `credentials` are USER:PASSWORD of a pull secret."""
        secret = ["--creds", credentials] if credentials else []
        self._cri(["pull", *secret, image], timeout_seconds)

    def remove(self, image: str) -> None:
        """As the kubelet does: the image under all of its names, and what belongs to no other image."""
        self._cri(["rmi", image], 30)

    def pull_directly(self, image: str) -> None:
        """Without the kubelet's way and without Darner: from a registry in plain HTTP, under the name that it has there."""
        argv = ["images", "pull", "--plain-http", image]
        self._inside([self._runtime.programs / "ctr", "--namespace", "k8s.io", *argv], _PULL_SECONDS_MAX)

    @property
    def content(self) -> Path:
        """The directory of its content store."""
        return self._directory / "root" / "io.containerd.content.v1.content"

    def run(self, image: str, command: tuple[str, ...]) -> str:
        """What a command prints that runs in the image, in a container made by runc."""
        identifier = f"container-{next(_containers)}"
        group = f"/{self._host.lab.name}/{identifier}"  # below a name that the lab removes when it closes
        snapshotter = ["--snapshotter", "stargz"] if self._runtime.lazy else []
        argv = ["run", "--rm", "--cgroup", group, *snapshotter, image, identifier, *command]
        return self._inside([self._runtime.programs / "ctr", "--namespace", "k8s.io", *argv], 60)

    def discard(self) -> None:
        """End it, with its containers, and remove what it keeps. The host can have another one then, which knows no image."""
        init = self._init
        self.process.kill()
        wait_until(lambda: not Path(f"/proc/{init}").exists())  # its mounts are gone with the last process of its namespace
        shutil.rmtree(self._directory)

    def images(self) -> list[str]:
        return self._inside([self._runtime.programs / "ctr", "--namespace", "k8s.io", "images", "list", "--quiet"], 30).split()

    def _cri(self, argv: list[str], timeout_seconds: float) -> None:
        endpoint = "unix:///run/containerd/containerd.sock"
        options = ["--runtime-endpoint", endpoint, "--image-endpoint", endpoint, "--timeout", f"{timeout_seconds:g}s"]
        self._inside([built_programs() / "crictl", *options, *argv], timeout_seconds + 5)

    def _inside(self, argv: list[object], timeout_seconds: float) -> str:
        return self._host.run(self._entering(["env", f"PATH={self._path}", *argv]), timeout_seconds)

    def _entering(self, argv: list[object]) -> list[object]:
        """What to execute so that `argv` runs in the namespaces of containerd, whose /run holds its sockets."""
        return ["nsenter", "--target", self._init, "--mount", "--pid", "--", *argv]

    @property
    def _init(self) -> str:
        """The process id of containerd itself, which is the first one of its namespace."""
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0]

    def _snapshotter_answers(self) -> bool:
        try:
            self._inside([self._runtime.programs / "ctr", "snapshots", "--snapshotter", "stargz", "list"], 10)
        except LabError:
            return False
        return True

    def _answers(self) -> bool:
        try:
            self._inside([self._runtime.programs / "ctr", "version"], 10)
        except (LabError, IndexError):
            return False
        return True


@cache
def built_programs() -> Path:
    """The folder of containerd 2 and crictl; they are built if this machine has not got them yet."""
    done = subprocess.run([_BUILD], text=True, capture_output=True, timeout=_BUILD_SECONDS_MAX, check=False)
    if done.returncode:
        raise LabError(f"containerd cannot be built\n{done.stderr}")
    return Path(done.stdout.strip())
