"""nginx with sendfile on: the measure of what serving bytes costs, and the origin of the pulls that are measured beside it.

One worker, so that its processor time is one process's. It serves an image as a registry lays it out, from files that lie in the
page cache after their first use. It sends as the system's congestion control says, or not paced when it is told so, as an agent
sends to its own machine: nginx has no directive for that, so its listening socket is borrowed and told.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from agent.http.wire import do_not_pace
from hack.lab import Host, LabError
from hack.origin import Image

REPOSITORY = "bench/image"
_PORT = 8080
_PIDFD_GETFD = 438  # of <asm-generic/unistd.h>, the same on every machine; pidfd_getfd(2)
_libc = ctypes.CDLL(None, use_errno=True)
_CONFIG = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    sendfile on;
    sendfile_max_chunk 8m;
    tcp_nopush on;
    access_log off;
    keepalive_requests 1000000;
    default_type application/octet-stream;
    client_body_temp_path {directory}/nginx-tmp;
    proxy_temp_path {directory}/nginx-tmp;
    server {{
        listen {address};
        root {directory}/www;
        location ~ /manifests/ {{ default_type {media_type}; }}
    }}
}}
"""


class Nginx:
    def __init__(self, host: Host, image: Image, *, paced: bool = True) -> None:
        """`paced` as the system has it; each on a host of its own."""
        directory = host.lab.directory / f"{host.name}-nginx"
        self.address = f"{host.address}:{host.port(_PORT)}"
        self._host = host
        root = directory / "www/v2" / REPOSITORY
        for part in ("manifests", "blobs"):
            (root / part).mkdir(parents=True)
        (root / "manifests/1").write_bytes(image.manifest)
        (root / "manifests" / image.digest).write_bytes(image.manifest)
        for digest, content in image.blobs.items():
            if isinstance(content, Path):
                (root / "blobs" / digest).symlink_to(content)
            else:
                (root / "blobs" / digest).write_bytes(content)
        config = directory / "nginx.conf"
        config.write_text(_CONFIG.format(directory=directory, address=self.address, media_type=image.media_type))
        self.process = host.start("nginx", ["nginx", "-e", "stderr", "-c", config], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        self.process.wait_until(self._answers)
        if not paced:
            with self.listening_socket() as sock:
                do_not_pace(sock)

    @contextlib.contextmanager
    def listening_socket(self) -> Iterator[socket.socket]:
        """nginx's own, borrowed: what is set here holds for what it accepts from now on."""
        process = os.pidfd_open(self.process.pid)
        try:
            for file in Path(f"/proc/{self.process.pid}/fd").iterdir():
                if str(file.readlink()).startswith("socket:"):
                    with socket.socket(fileno=_borrowed(process, int(file.name))) as sock:
                        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                            yield sock
                            return
        finally:
            os.close(process)
        raise LabError("nginx listens on no socket")

    def _answers(self) -> bool:
        try:
            self._host.connect(self._host.port(_PORT), self._host.address).close()
        except OSError:
            return False
        return True


def _borrowed(process: int, descriptor: int) -> int:
    """Another process's open file, as a descriptor of this one."""
    own: int = _libc.syscall(_PIDFD_GETFD, process, descriptor, 0)
    if own < 0:
        raise LabError(f"nginx does not lend its socket: {os.strerror(ctypes.get_errno())}")
    return own
