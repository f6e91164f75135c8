"""The webhook's certificate, and the authority behind it, are replaced while pods are admitted, and not one of them notices."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hack.cluster.api import Api
from hack.lab.process import wait_until
from tests.e2e.release import NAMESPACE, Release
from tests.e2e.space import Space, container_images, local

PODS_PER_SECOND, SECONDS = 20, 30
LIVES = {"life": "15s", "authorityLife": "20s", "authorityOverlap": "3s", "interval": "1s"}
"""Such that each is replaced within the time."""
SECRET = "darner-webhook-certificate"


@pytest.mark.timeout(300, func_only=True)
def test_no_pod_is_admitted_unrewritten_while_certificates_are_rotated(darner: Release, space: Space, api: Api) -> None:
    image = space.push()
    values: dict[str, Any] = {**darner.values, "webhook": {"certificate": LIVES}}
    darner.helm("upgrade", darner.name, darner.chart, values=values)
    try:
        _begin_anew(darner, space, image.name)
        seen: dict[str, set[str]] = {"tls.crt": set(), "ca.crt": set()}
        begin = time.monotonic()
        with ThreadPoolExecutor(PODS_PER_SECOND) as pool:
            admitted = []
            for number in range(PODS_PER_SECOND * SECONDS):
                time.sleep(max(0.0, begin + number / PODS_PER_SECOND - time.monotonic()))
                admitted.append(pool.submit(space.gated, f"web-{number}", image.name))
                if number % PODS_PER_SECOND == 0:
                    secret = api.get("Secret", NAMESPACE, SECRET)
                    assert secret is not None
                    for name, versions in seen.items():
                        versions.add(secret["data"][name])
            names = [container_images(pod.result()) for pod in admitted]
        assert time.monotonic() - begin < SECONDS + 5, "so many pods a second were really admitted"
        assert names == [[local(image.name)]] * len(names)
        assert len(seen["tls.crt"]) >= 3
        assert len(seen["ca.crt"]) >= 3, "one authority, both, and the other alone"
    finally:
        darner.helm("rollback", darner.name)
        _begin_anew(darner, space, image.name)


def _begin_anew(darner: Release, space: Space, image: str) -> None:
    """A certificate and an authority that live as long as the settings now say, and are trusted."""
    with darner.without_webhook():
        darner.api.delete("Secret", NAMESPACE, SECRET)
    darner.wait_ready()
    wait_until(lambda: container_images(space.gated(f"probe-{secrets.token_hex(3)}", image)) == [local(image)])
