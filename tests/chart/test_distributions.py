"""k3s and RKE2 have their containerd elsewhere, and a cluster's version tells of them.

`helm template` hears of no such thing, so this takes an API server.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from hack.chart.helm import CHART, Helm

MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: paths}
data:
  hosts: {{ include "darner.hostsPath" . | quote }}
  content: {{ include "darner.contentPath" . | quote }}
"""
CONFIG_MAPS = {"name": "configmaps", "kind": "ConfigMap", "namespaced": True, "verbs": ["get"]}


@contextmanager
def api_server(version: str) -> Iterator[str]:
    """The URL of one that says its version and knows ConfigMaps, which is all that Helm asks it for."""
    documents = {
        "/version": {"major": "1", "minor": "36", "gitVersion": version},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [CONFIG_MAPS]},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = documents.get(self.path.partition("?")[0])
            body = json.dumps(document or {"kind": "Status", "code": 404}).encode()
            self.send_response(200 if document else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("version", "hosts", "content"),
    [
        ("v1.36.3", "/etc/containerd", "/var/lib/containerd"),
        ("v1.36.3+k3s1", "/var/lib/rancher/k3s/agent/etc/containerd", "/var/lib/rancher/k3s/agent/containerd"),
        ("v1.34.4+rke2r2", "/var/lib/rancher/rke2/agent/etc/containerd", "/var/lib/rancher/rke2/agent/containerd"),
        ("v1.33.5-eks-3025e55", "/etc/containerd", "/var/lib/containerd"),
    ],
)
def test_containerds_directories_are_known_by_the_version_of_the_cluster(
    helm: Helm, tmp_path: Path, version: str, hosts: str, content: str
) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "map.yaml").write_text(MAP)
    for name in ("Chart.yaml", "values.yaml", "templates/_names.tpl"):
        shutil.copy(CHART / name, tmp_path / name)
    with api_server(version) as url:
        options = ["--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", url, "--output", "json"]
        done = helm("install", "darner", str(tmp_path), *options, values={"mirror": {"enabled": True}})
    assert done.returncode == 0, done.stderr
    data = yaml.safe_load(json.loads(done.stdout)["manifest"])["data"]
    assert data == {"hosts": f"{hosts}/certs.d", "content": f"{content}/io.containerd.content.v1.content"}
