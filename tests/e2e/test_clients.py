"""With `webhook.clients` the API server alone is answered: by the certificate that it shows, which nobody else has."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import pytest

from hack.cluster import ClusterError
from hack.cluster.api import Api
from hack.cluster.control import WEBHOOK_CLIENT_NAME
from tests.e2e.release import NAMESPACE, Release
from tests.e2e.space import Space, container_images, local

AUTHORITY = "webhook-clients"
ENDED = r"curl: \((35|52|55|56)\)"
"""In curl's numbers: who is reached ends the connection, in the handshake, before an answer, or while one sends or receives. In
TLS 1.3 a server hears of a client's certificate after the client has begun to send."""
SERVICE = "darner-webhook.darner-system.svc"


@pytest.mark.timeout(300, func_only=True)
def test_only_the_api_server_is_answered(darner: Release, space: Space, api: Api, tmp_path: Path) -> None:
    image = space.push()
    shown = darner.cluster.control.webhook_authority
    metadata = {"name": AUTHORITY, "namespace": NAMESPACE}
    api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": shown.read_text()}})
    clients = {"configMap": AUTHORITY, "names": [WEBHOOK_CLIENT_NAME]}
    values: dict[str, Any] = {**darner.values, "webhook": {"clients": clients}}
    assert "405" in _asked(darner, api, tmp_path), "without it anybody is answered"
    darner.helm("upgrade", darner.name, darner.chart, values=values)
    try:
        darner.wait_ready()
        assert container_images(space.gated("web", image.name)) == [local(image.name)]
        with pytest.raises(ClusterError, match=ENDED):
            _asked(darner, api, tmp_path)
        certificate, key = (shutil.copy(shown.with_name(name), tmp_path) for name in ("client.crt", "client.key"))
        assert "405" in _asked(darner, api, tmp_path, "--cert", certificate, "--key", key)
    finally:
        darner.helm("rollback", darner.name)
        api.delete("ConfigMap", NAMESPACE, AUTHORITY)


def _asked(darner: Release, api: Api, directory: Path, *arguments: object) -> str:
    """The status of an answer to somebody on a node. Raises ClusterError with curl's words where there is none."""
    secret = api.get("Secret", NAMESPACE, "darner-webhook-certificate")
    assert secret is not None
    (directory / "ca.crt").write_bytes(base64.b64decode(secret["data"]["ca.crt"]))
    address = darner.pods("webhook")[0]["status"]["podIP"]
    curl = ["curl", "--silent", "--show-error", "--max-time", "10", "--output", "/dev/null", "--write-out", "%{http_code}"]
    place = ["--cacert", directory / "ca.crt", "--connect-to", f"{SERVICE}:443:{address}:10250", f"https://{SERVICE}/mutate"]
    return darner.cluster.run("n1", [*curl, *arguments, *place])
