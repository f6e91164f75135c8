"""Token services that may see a registry's credentials, and those that may not."""

from __future__ import annotations

import pytest

from agent.origin.realm import realm_belongs


@pytest.mark.parametrize(
    ("realm", "registry"),
    [
        ("auth.docker.io", "registry-1.docker.io"),
        ("ghcr.io", "ghcr.io"),
        ("quay.io", "quay.io"),
        ("gitlab.com", "registry.gitlab.com"),
        ("gitlab.example.com", "registry.example.com"),
        ("auth.example.com", "example.com"),
        ("auth.registry.example.com", "registry.example.com"),
        ("auth.example.co.uk", "registry.example.co.uk"),
        ("auth.example.co.uk", "example.co.uk"),
        ("auth.sap.de", "registry.sap.de"),
        ("auth.tools.svc.cluster.local", "registry.tools.svc.cluster.local"),
        ("somebody.github.io", "somebody.github.io"),
        ("auth.somebody.github.io", "somebody.github.io"),
        ("localhost", "localhost"),
        ("registry", "registry"),
        ("10.0.0.7", "10.0.0.7"),
        ("fd00::7", "fd00::7"),
    ],
)
def test_a_token_service_of_the_registrys_own_domain_may_see_its_credentials(realm: str, registry: str) -> None:
    assert realm_belongs(realm, registry)


@pytest.mark.parametrize(
    ("realm", "registry"),
    [
        ("evil.com", "registry.example.com"),
        ("example.com.evil.com", "registry.example.com"),
        ("evilexample.com", "registry.example.com"),
        ("evil.com", "example.com"),
        ("com", "example.com"),
        ("evil.io", "quay.io"),
        ("evil.quay.com", "quay.io"),
        ("", "example.com"),
        ("", ""),
        ("example.com", ""),
        (".example.com", "registry.example.com."),
        ("auth.example.com.", "registry.example.com."),
    ],
)
def test_a_foreign_host_may_not(realm: str, registry: str) -> None:
    assert not realm_belongs(realm, registry)


@pytest.mark.parametrize(
    ("realm", "registry"),
    [
        ("evil.co.uk", "example.co.uk"),
        ("co.uk", "example.co.uk"),
        ("evil.com.au", "example.com.au"),
        ("evil.ne.jp", "example.ne.jp"),
        ("evil.github.io", "somebody.github.io"),
        ("evil.azurecr.io", "somebody.azurecr.io"),
        ("evil.10.0.0.7.nip.io", "nip.io"),
        ("evil.nip.io", "registry.nip.io"),
        ("evil.amazonaws.com", "registry.amazonaws.com"),
        ("evil.jfrog.io", "somebody.jfrog.io"),
        ("evil.sslip.io", "registry.sslip.io"),
        ("evil.windows.net", "registry.windows.net"),
        ("evil.blob.core.windows.net", "somebody.blob.core.windows.net"),
        ("evil.kobe.jp", "example.kobe.jp"),
        ("evil.lib.ca.us", "example.lib.ca.us"),
        ("evil.translate.goog", "registry.translate.goog"),
        ("evil.xn--55qx5d.cn", "registry.xn--55qx5d.cn"),
        ("evil.公司.cn", "registry.公司.cn"),
    ],
)
def test_a_neighbour_may_not_where_whoever_likes_gets_a_name(realm: str, registry: str) -> None:
    assert not realm_belongs(realm, registry)


@pytest.mark.parametrize(
    ("realm", "registry"),
    [
        ("evil.s3.amazonaws.com", "amazonaws.com"),
        ("evil.github.io", "github.io"),
        ("evil.ap-south-1.elasticbeanstalk.com", "registry.elasticbeanstalk.com"),
    ],
)
def test_a_name_of_another_owner_may_not_although_it_is_below_the_registrys_domain(realm: str, registry: str) -> None:
    assert not realm_belongs(realm, registry)


@pytest.mark.parametrize(
    ("realm", "registry"),
    [
        ("10.0.0.8", "10.0.0.7"),
        ("8.0.0.7", "10.0.0.7"),
        ("0.0.7", "10.0.0.7"),
        ("1.10.0.0.7", "10.0.0.7"),
        ("10.0.0.7", "registry.example.com"),
        ("registry.example.com", "10.0.0.7"),
        ("fd00::8", "fd00::7"),
        ("::ffff:10.0.0.8", "::ffff:10.0.0.7"),
        ("evil.localhost", "localhost"),
        ("evil.registry", "registry"),
        ("evil.0x7f.1", "0x7f.1"),
    ],
)
def test_an_address_or_a_bare_name_has_no_domain(realm: str, registry: str) -> None:
    assert not realm_belongs(realm, registry)
