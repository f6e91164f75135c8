"""nginx with sendfile on: the measure of what serving bytes costs, and the origin of the pulls that are measured beside it.

One worker, so that its processor time is one process's. It serves an image as a registry lays it out, from files that lie in the
page cache after their first use.
"""

from __future__ import annotations

from pathlib import Path

from hack.lab import Host
from hack.origin import Image

REPOSITORY = "bench/image"
_PORT = 8080
_CONFIG = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    sendfile on;
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
    def __init__(self, host: Host, image: Image) -> None:
        directory = host.lab.directory
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

    def _answers(self) -> bool:
        try:
            self._host.connect(self._host.port(_PORT), self._host.address).close()
        except OSError:
            return False
        return True
