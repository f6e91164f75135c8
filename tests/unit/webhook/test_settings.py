"""The webhook's command line: what fits together, and one line that says what does not."""

from __future__ import annotations

import pytest

from agent.values.errors import UsageError
from agent.values.pattern import pattern
from agent.values.reference import Reference
from webhook.kube.api import ObjectName
from webhook.settings import load_webhook_settings


def test_the_defaults_listen_where_the_chart_expects_it() -> None:
    settings = load_webhook_settings(["--certificate-dir", "/certificates"], {})
    assert (str(settings.listen), str(settings.http_listen)) == ("0.0.0.0:10250", "0.0.0.0:8080")
    assert settings.policy.excluded_namespaces == {"kube-system", "kube-public", "kube-node-lease"}
    assert settings.policy.admits(Reference.parse("nginx"))
    assert not settings.policy.admits(Reference.parse("auto"))


def test_every_setting_is_an_environment_variable_too() -> None:
    environment = {
        "DARNER_CERTIFICATE_SECRET": "darner-system/darner-webhook",
        "DARNER_NAMESPACE": "darner-system",
        "DARNER_EXCLUDED_NAMESPACES": "",
        "DARNER_EXCLUDE_IMAGES": "*.example.com, quay.io/team/*",
    }
    settings = load_webhook_settings([], environment)
    assert settings.certificate_secret == ObjectName("darner-system", "darner-webhook")
    assert settings.policy.excluded_namespaces == {"darner-system"}
    assert [item.text for item in settings.policy.exclude] == ["*.example.com", "quay.io/team/*"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "write either --certificate-dir DIR or --certificate-secret NAMESPACE/NAME"),
        (["--certificate-dir", "a", "--certificate-secret", "a/b"], "write either"),
        (["--certificate-secret", "name"], "write NAMESPACE/NAME"),
        (["--certificate-secret", "a/b/c"], "write NAMESPACE/NAME"),
        (["--certificate-dir", "a", "--only-namespaces", "A/b"], "is no name of a namespace"),
        (["--certificate-dir", "a", "--only-namespaces", ",".join(f"n{n}" for n in range(33))], "names more than 32"),
        (["--certificate-dir", "a", "--client-ca-file", "ca.crt"], "write --client-ca-file and --client-names together"),
        (["--certificate-dir", "a", "--client-names", "kube-apiserver"], "write --client-ca-file and --client-names together"),
        (["--certificate-dir", "a", "--certificate-names", ""], "--certificate-names is empty"),
        (["--certificate-dir", "a", "--certificate-names", "höst"], "is no name of a server"),
        (["--certificate-dir", "a", "--certificate-names", "a b"], "is no name of a server"),
        (["--certificate-dir", "a", "--certificate-life", "0s"], "--certificate-life must be more than 0s"),
        (["--certificate-dir", "a", "--certificate-interval", "0s"], "--certificate-interval must be more than 0s"),
        (["--certificate-dir", "a", "--agent-ready-percent", "100"], "--agent-ready-percent must be less than 100"),
        (["--certificate-dir", "a", "--agent-view-age", "10s"], "--agent-view-age must be at least 20s"),
        (["--certificate-dir", "a", "--agent-service", "agents"], "write NAMESPACE/NAME"),
        (["--certificate-dir", "a", "--pull-secrets", "yes"], "is neither true nor false"),
        (["--certificate-dir", "a", "--pull-secret-deadline", "0s"], "--pull-secret-deadline must be more than 0s"),
        (["--certificate-dir", "a", "--exclude-images", "a b"], "is not a pattern"),
        (["--certificate-dir", "a", "--exclude-images", "/a"], "is not a pattern"),
        (["--certificate-dir", "a", "--include-images", "docker.io/"], "is not a pattern"),
        (["--certificate-dir", "a", "--listen", "8443"], "write HOST:PORT"),
        (["--certificate-dir", "a", "--warm-architectures", "x86 64"], "is no architecture"),
        (
            ["--certificate-dir", "a", "--warm-on-admission", "true"],
            "--warm-on-admission takes --swarm-key-file, and --supernodes",
        ),
        (["--certificate-dir", "a", "--warm-on-admission", "true", "--swarm-key-file", "k"], "--warm-on-admission takes"),
        (["--certificate-dir", "a", "--warm-on-admission", "true", "--supernodes", "h:1"], "--warm-on-admission takes"),
        (
            ["--certificate-dir", "a", "--warm-on-admission", "true", "--swarm-key-file", "k", "--supernode-service", "nobody"],
            "--supernode-service: 'nobody' is no service's name",
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(argv: list[str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_webhook_settings(argv, {})
    assert said in str(refused.value)
    assert str(refused.value).startswith("darner webhook: ")
    assert "\n" not in str(refused.value)


def test_a_pattern_with_many_stars_is_matched_in_no_time() -> None:
    long = Reference.parse("quay.io/" + "a" * 240)
    assert not pattern("*a" * 60 + "b/*").matches(long.registry, long.repository)
