"""Targets of the registry endpoint: what each of them asks for, by the path and by a mirror's `ns`."""

from __future__ import annotations

import pytest

from agent.registry.target import (
    QUERY_FIELDS_MAX,
    TARGET_LENGTH_MAX,
    BlobResource,
    ListingResource,
    ManifestResource,
    Ping,
    parse_range,
    parse_target,
)
from agent.values.errors import DarnerError, RequestError
from agent.values.reference import Digest

SHA = Digest("sha256:" + "0123456789abcdef" * 4)


@pytest.mark.parametrize("target", ["/v2/", "/v2", "/v2/?ns=docker.io"])
def test_the_base_is_the_question_whether_this_is_a_registry(target: str) -> None:
    assert parse_target(target) == Ping()


@pytest.mark.parametrize(
    ("target", "resource"),
    [
        ("docker.io/library/nginx/manifests/1.27", ManifestResource("docker.io", "library/nginx", "1.27")),
        ("docker.io/nginx/manifests/latest", ManifestResource("docker.io", "library/nginx", "latest")),
        ("index.docker.io/nginx/manifests/latest", ManifestResource("docker.io", "library/nginx", "latest")),
        (f"quay.io/a/b/manifests/{SHA}", ManifestResource("quay.io", "a/b", SHA)),
        ("host.com_5000/a/manifests/Tag_1.0-x", ManifestResource("host.com:5000", "a", "Tag_1.0-x")),
        ("localhost_5000/a/manifests/1", ManifestResource("localhost:5000", "a", "1")),
        ("127.0.0.1_5000/a/manifests/1", ManifestResource("127.0.0.1:5000", "a", "1")),
        (f"ghcr.io/a/b/c/d/blobs/{SHA}", BlobResource("ghcr.io", "a/b/c/d", SHA)),
        ("ghcr.io/manifests/blobs/tags/manifests/1", ManifestResource("ghcr.io", "manifests/blobs/tags", "1")),
        ("ghcr.io/a/tags/list", ListingResource("ghcr.io", "a", "tags/list")),
        ("ghcr.io/a/tags/list?n=10&last=b", ListingResource("ghcr.io", "a", "tags/list?n=10&last=b")),
        (f"ghcr.io/a/referrers/{SHA}", ListingResource("ghcr.io", "a", f"referrers/{SHA}")),
        (
            f"ghcr.io/a/referrers/{SHA}?artifactType=application%2Fspdx%2Bjson",
            ListingResource("ghcr.io", "a", f"referrers/{SHA}?artifactType=application%2Fspdx%2Bjson"),
        ),
    ],
)
def test_the_first_component_of_a_repository_is_the_registry(target: str, resource: ManifestResource) -> None:
    assert parse_target(f"/v2/{target}") == resource


@pytest.mark.parametrize(
    ("target", "resource"),
    [
        ("library/nginx/manifests/1?ns=docker.io", ManifestResource("docker.io", "library/nginx", "1")),
        ("nginx/manifests/1?ns=docker.io", ManifestResource("docker.io", "library/nginx", "1")),
        ("nginx/manifests/1?ns=index.docker.io", ManifestResource("docker.io", "library/nginx", "1")),
        ("a/manifests/1?ns=host.com%3A5000", ManifestResource("host.com:5000", "a", "1")),
        ("a/manifests/1?ns=host.com:5000", ManifestResource("host.com:5000", "a", "1")),
        ("a/manifests/1?ns=Host.COM", ManifestResource("host.com", "a", "1")),
        ("a/manifests/1?ns=registry", ManifestResource("registry", "a", "1")),
        ("a/manifests/1?ns=localhost", ManifestResource("localhost", "a", "1")),
        ("a/manifests/1?ns=[fd00::1]:5000", ManifestResource("[fd00::1]:5000", "a", "1")),
        ("quay.io/a/manifests/1?ns=ghcr.io", ManifestResource("ghcr.io", "quay.io/a", "1")),
        (f"a/blobs/{SHA}?ns=ghcr.io", BlobResource("ghcr.io", "a", SHA)),
        ("a/tags/list?ns=ghcr.io&n=5", ListingResource("ghcr.io", "a", "tags/list?n=5")),
        ("quay.io/a/manifests/1?ns=", ManifestResource("quay.io", "a", "1")),
        ("quay.io/a/manifests/1?other=x", ManifestResource("quay.io", "a", "1")),
    ],
)
def test_a_mirrors_ns_names_the_registry_instead(target: str, resource: ManifestResource) -> None:
    assert parse_target(f"/v2/{target}") == resource


@pytest.mark.parametrize(
    "query",
    [
        *("ns=a.io&ns=b.io", "ns=a/b", "ns=..", "ns=http://a.io", "ns=user@a.io", "ns=a.io%2f", "ns=a.io%00", "ns=a.io%0d%0aX:1"),
        *("ns=5000", "ns=a.io:port", "ns=%ff", "ns=-a.io", "ns=a_b.io", "ns=127.0.0.1#", "ns=a.io" + "&a=1" * QUERY_FIELDS_MAX),
    ],
)
def test_an_ns_that_names_no_registry_is_refused(query: str) -> None:
    with pytest.raises(DarnerError) as refused:
        parse_target(f"/v2/a/manifests/1?{query}")
    assert (refused.value.status, refused.value.code) == (400, "NAME_INVALID")


@pytest.mark.parametrize(
    "said",
    ["n=10&n=20", "last=a%2Fb", "artifactType=a/b"],
)
def test_of_a_lists_query_what_the_specification_knows_is_passed_on(said: str) -> None:
    resource = parse_target(f"/v2/ghcr.io/a/tags/list?x=1&{said}&next=http://evil&n=a b&last=&n={'9' * 300}")
    assert resource == ListingResource("ghcr.io", "a", f"tags/list?{said}")


@pytest.mark.parametrize("target", ["ghcr.io/a/tags/other", "ghcr.io/a/referrers/latest", "ghcr.io/a/referrers/md5:0"])
def test_other_lists_do_not_exist(target: str) -> None:
    with pytest.raises(DarnerError) as refused:
        parse_target(f"/v2/{target}")
    assert refused.value.status in (400, 404)


def test_a_target_is_as_long_as_the_limit_and_no_longer() -> None:
    target = "/v2/ghcr.io/a/tags/list?last="
    parse_target(target.ljust(TARGET_LENGTH_MAX, "a"))
    with pytest.raises(RequestError):
        parse_target(target.ljust(TARGET_LENGTH_MAX + 1, "a"))


def test_an_empty_blob_is_sent_whole_whatever_range_is_asked_for() -> None:
    for header in ("bytes=0-", "bytes=0-0", "bytes=-5", "bytes=-0", "bytes=7-"):
        assert parse_range(header, 0) is None
