"""The webhook's certificate by cert-manager: what is asked of it fits the Service, and the webhook's own rotation is off.

Validated against cert-manager's own definitions; cert-manager itself does not run here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hack.chart.helm import Object, environment, one, pod_template

Render = Callable[..., list[Object]]


@pytest.fixture(scope="module")
def render_with(render: Render) -> Callable[..., list[Object]]:
    def render_with(certificate: dict[str, Any] | None = None, **manager: Any) -> list[Object]:
        return render({"webhook": {"certificate": {**(certificate or {}), "certManager": {"enabled": True, **manager}}}})

    return render_with


def by_name(objects: list[Object], kind: str) -> dict[str, Object]:
    return {item["metadata"]["name"]: item["spec"] for item in objects if item["kind"] == kind}


def test_without_it_there_is_nothing_of_it(default: list[Object]) -> None:
    assert not [item for item in default if item["apiVersion"].startswith("cert-manager.io/")]
    assert "annotations" not in one(default, "MutatingWebhookConfiguration", "webhook")["metadata"]


def test_an_authority_that_signs_itself_and_lives_long_signs_the_certificate(render_with: Render) -> None:
    objects = render_with()
    issuers, certificates = by_name(objects, "Issuer"), by_name(objects, "Certificate")
    authority, serving = certificates["darner-webhook-authority"], certificates["darner-webhook"]
    assert issuers["darner-webhook-selfsigned"] == {"selfSigned": {}}
    assert (authority["isCA"], authority["issuerRef"]["name"]) == (True, "darner-webhook-selfsigned")
    assert issuers["darner-webhook"] == {"ca": {"secretName": authority["secretName"]}}
    assert serving["issuerRef"] == {"group": "cert-manager.io", "kind": "Issuer", "name": "darner-webhook"}
    assert "isCA" not in serving
    assert authority["secretName"] != serving["secretName"]


def test_the_certificate_is_for_the_service_and_its_authority_is_told_to_api_servers(render_with: Render) -> None:
    objects = render_with()
    configuration = one(objects, "MutatingWebhookConfiguration", "webhook")
    assert configuration["metadata"]["annotations"] == {"cert-manager.io/inject-ca-from": "darner-system/darner-webhook"}
    client = configuration["webhooks"][0]["clientConfig"]
    assert "caBundle" not in client
    service = client["service"]
    assert by_name(objects, "Certificate")["darner-webhook"]["dnsNames"] == [f"{service['name']}.{service['namespace']}.svc"]


@pytest.mark.parametrize("secret", ["", "a-name-of-the-operators"])
def test_the_webhook_serves_the_secret_and_makes_none_itself(render_with: Render, secret: str) -> None:
    objects = render_with({"existingSecret": secret})
    name = by_name(objects, "Certificate")["darner-webhook"]["secretName"]
    assert name == (secret or "darner-webhook-certificate")
    pod = pod_template(objects, "webhook")["spec"]
    assert [item["secret"]["secretName"] for item in pod["volumes"] if item["name"] == "certificate"] == [name]
    told = environment(objects, "webhook", "10.0.0.7")
    assert told["DARNER_CERTIFICATE_DIR"] == "/etc/darner/certificate"
    assert not {"DARNER_CERTIFICATE_SECRET", "DARNER_WEBHOOK_CONFIGURATION"} & told.keys()
    assert name not in {item["metadata"]["name"] for item in objects if item["kind"] == "Secret"}
    for item in objects:
        if item["kind"] in ("Role", "ClusterRole") and "annotations" not in item["metadata"]:  # those of an uninstallation aside
            assert name not in [named for rule in item["rules"] for named in rule.get("resourceNames", [])]
            assert not [rule for rule in item["rules"] if "mutatingwebhookconfigurations" in rule["resources"]]


def test_an_issuer_of_the_operators_signs_it_instead(render_with: Render) -> None:
    objects = render_with(issuerRef={"kind": "ClusterIssuer", "name": "company"}, duration="720h")
    assert not by_name(objects, "Issuer")
    assert by_name(objects, "Certificate").keys() == {"darner-webhook"}
    serving = by_name(objects, "Certificate")["darner-webhook"]
    assert serving["issuerRef"] == {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "company"}
    assert serving["duration"] == "720h"


def test_an_annotation_of_the_operators_counts_more(render: Render) -> None:
    own = {"cert-manager.io/inject-ca-from": "other/certificate"}
    objects = render({"webhook": {"certificate": {"certManager": {"enabled": True}}, "configurationAnnotations": own}})
    assert one(objects, "MutatingWebhookConfiguration", "webhook")["metadata"]["annotations"] == own


def test_an_issuer_without_a_name_is_refused(helm: Any) -> None:
    refused = helm.template({"webhook": {"certificate": {"certManager": {"enabled": True, "issuerRef": {"kind": "Issuer"}}}}})
    assert refused.returncode != 0
    assert "issuerRef" in refused.stderr
