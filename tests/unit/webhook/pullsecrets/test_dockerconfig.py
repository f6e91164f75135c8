"""Derived pull secrets: what they hold, under which keys, and whose they are."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.kubelet_keyring import auths_of, credentials_for
from webhook.pods import RELEASE
from webhook.pullsecrets.dockerconfig import (
    DERIVED_FROM,
    NAME_LENGTH_MAX,
    Original,
    derive,
    derived_from,
    derived_name,
    original_of,
    originals_among,
    registries_of,
    registries_with_credentials,
)

LOCAL = "127.0.0.1:65001/"


def secret(auths: Any, name: str = "registry", kind: str = "kubernetes.io/dockerconfigjson", **metadata: Any) -> dict[str, Any]:
    content, key = ({"auths": auths}, ".dockerconfigjson") if kind.endswith("json") else (auths, ".dockercfg")
    data = {key: base64.b64encode(json.dumps(content).encode()).decode()}
    identity = {"name": name, "namespace": "shop", "uid": "u-1", "resourceVersion": "7", **metadata}
    return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": identity, "data": data}


def login(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:pass-{user}".encode()).decode()}


def original(*locations: str, **more: Any) -> Original:
    """Each location with a user of its own, who is named like it."""
    read = original_of(secret({location: login(location) for location in locations}, **more))
    assert read
    return read


def derived(source: Original, *registries: str) -> dict[str, Any]:
    """Key to user."""
    auths = auths_of(derive(source, registries))
    return {key: base64.b64decode(entry["auth"]).decode().split(":pass-")[1] for key, entry in auths.items()}


def test_a_derived_secret_belongs_to_the_release_that_made_it_first() -> None:
    source = original("quay.io")
    assert RELEASE not in derive(source, ["quay.io"])["metadata"]["labels"]
    made = derive(source, ["quay.io"], release="one.darner")
    assert made["metadata"]["labels"][RELEASE] == "one.darner"
    assert derive(source, ["quay.io"], made, release="two.darner") == made
    assert (
        derive(source, ["quay.io"], derive(source, ["quay.io"]), release="two.darner")["metadata"]["labels"][RELEASE]
        == "two.darner"
    )


@pytest.mark.parametrize(
    ("location", "registry", "key"),
    [
        ("reg.example.com", "reg.example.com", "reg.example.com/"),
        ("https://reg.example.com", "reg.example.com", "reg.example.com/"),
        ("http://reg.example.com/", "reg.example.com", "reg.example.com/"),
        ("https://reg.example.com/v2/", "reg.example.com", "reg.example.com/"),
        ("reg.example.com/v1/team", "reg.example.com", "reg.example.com/team"),
        ("Reg.Example.com", "reg.example.com", "reg.example.com/"),
        ("user@reg.example.com", "reg.example.com", "reg.example.com/"),
        ("reg.example.com?x=1", "reg.example.com", "reg.example.com/"),
        ("reg.example.com:5000", "reg.example.com:5000", "reg.example.com_5000/"),
        ("localhost:5000", "localhost:5000", "localhost_5000/"),
        ("10.0.0.7:5000/team/", "10.0.0.7:5000", "10.0.0.7_5000/team/"),
        ("reg.example.com/team/app", "reg.example.com", "reg.example.com/team/app"),
        ("*.example.com", "reg.example.com", "reg.example.com/"),
        ("*.*.example.com:5000/team", "a.b.example.com:5000", "a.b.example.com_5000/team"),
        ("r*g.ex*.com", "reg.example.com", "reg.example.com/"),
        ("https://index.docker.io/v1/", "docker.io", "docker.io/"),
        ("https://index.docker.io/v1", "docker.io", "docker.io/"),
        ("index.docker.io", "docker.io", "docker.io/"),
        ("index.docker.io/v2/", "docker.io", "docker.io/"),
        ("docker.io", "docker.io", "docker.io/"),
        ("https://docker.io/v1/", "docker.io", "docker.io/"),
        ("docker.io/team", "docker.io", "docker.io/team"),
    ],
)
def test_a_credential_is_found_under_its_registrys_name_at_the_agent(location: str, registry: str, key: str) -> None:
    assert derived(original(location), registry) == {LOCAL + key: location}


@pytest.mark.parametrize(
    ("location", "registry"),
    [
        ("reg.example.com", "other.example.com"),
        ("reg.example.com", "reg.example.com:5000"),
        ("reg.example.com:5000", "reg.example.com"),
        ("reg.example.com:443", "reg.example.com"),
        ("*.example.com", "example.com"),
        ("*.example.com", "a.b.example.com"),
        ("*", "reg.example.com"),
        ("re?.example.com", "reg.example.com"),
        ("re[fg].example.com", "reg.example.com"),
        ("re\\g.example.com", "reg.example.com"),
        ("re[.example.com", "reg.example.com"),
        ("index.docker.io/team", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "index.docker.io.example.com"),
        ("v2", "v2"),
        ("", "reg.example.com"),
        ("/", "reg.example.com"),
        ("::", "reg.example.com"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_a_credential_for_another_place_is_not_copied(location: str, registry: str) -> None:
    source = original(location)
    assert registries_with_credentials(source, [registry]) == frozenset()
    assert derived(source, registry) == {}


def test_only_the_registries_of_the_images_at_hand_are_copied() -> None:
    source = original("a.example.com", "b.example.com", "https://index.docker.io/v1/")
    assert set(derived(source, "a.example.com").values()) == {"a.example.com"}
    assert registries_with_credentials(source, ["a.example.com", "quay.io", "docker.io"]) == {"a.example.com", "docker.io"}


def test_a_credential_does_not_reach_a_registry_whose_name_only_begins_like_its_own() -> None:
    auths = auths_of(derive(original("reg.example.com", "reg.example.com/team"), ["reg.example.com"]))
    for image in ("reg.example.com.evil.org/team/app", "reg.example.com_5000/team/app", "reg.example.community/app"):
        assert credentials_for(auths, LOCAL + image) == []
    assert len(credentials_for(auths, LOCAL + "reg.example.com/team/app")) == 2
    assert len(credentials_for(auths, LOCAL + "reg.example.com/other")) == 1


def test_the_more_specific_of_two_credentials_is_tried_first() -> None:
    auths = auths_of(derive(original("reg.example.com", "reg.example.com/team"), ["reg.example.com"]))
    found = credentials_for(auths, LOCAL + "reg.example.com/team/app")
    assert found == [login("reg.example.com/team"), login("reg.example.com")]


def test_several_credentials_for_one_place_all_stay() -> None:
    source = original("reg.example.com", "https://reg.example.com/v2/", "*.example.com")
    auths = auths_of(derive(source, ["reg.example.com"]))
    assert len(credentials_for(auths, LOCAL + "reg.example.com/app")) == 3
    assert set(auths) == {LOCAL + "reg.example.com/", f"https://{LOCAL}reg.example.com/", f"http://{LOCAL}reg.example.com/"}


def test_docker_hubs_own_name_goes_before_that_of_its_index_as_the_kubelet_has_it() -> None:
    assert derived(original("docker.io", "https://index.docker.io/v1/"), "docker.io") == {LOCAL + "docker.io/": "docker.io"}
    with_path = derived(original("docker.io/team", "https://index.docker.io/v1/"), "docker.io")
    assert with_path == {LOCAL + "docker.io/team": "docker.io/team", LOCAL + "docker.io/": "https://index.docker.io/v1/"}


def test_a_secret_of_the_older_form_is_read_and_derived_in_the_newer_one() -> None:
    source = original("reg.example.com", kind="kubernetes.io/dockercfg")
    made = derive(source, ["reg.example.com"])
    assert made["type"] == "kubernetes.io/dockerconfigjson"
    assert auths_of(made) == {LOCAL + "reg.example.com/": login("reg.example.com")}


def test_entries_are_copied_as_they_are() -> None:
    entry = {"username": "u", "password": "p", "email": "", "auth": "eDp5", "identitytoken": "t"}
    read = original_of(secret({"reg.example.com": entry}))
    assert read
    assert auths_of(derive(read, ["reg.example.com"])) == {LOCAL + "reg.example.com/": entry}


@pytest.mark.parametrize(
    "document",
    [
        {"type": "Opaque", "data": {".dockerconfigjson": "e30="}},
        {"type": "kubernetes.io/dockerconfigjson", "data": {}},
        {"type": "kubernetes.io/dockerconfigjson", "data": {".dockercfg": "e30="}},
        {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "***"}},
        {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": base64.b64encode(b"nonsense").decode()}},
        {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": base64.b64encode(b"[1]").decode()}},
        {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": base64.b64encode(b'{"auths": 7}').decode()}},
        {"type": "kubernetes.io/dockercfg", "data": {".dockercfg": base64.b64encode(b'{"a": 7}').decode()}},
        {"type": "kubernetes.io/dockercfg", "data": {".dockercfg": base64.b64encode(b"[" * 100_000).decode()}},
        {"type": 7, "data": 7},
        {},
    ],
)
def test_a_secret_of_which_the_kubelet_would_use_nothing_is_no_pull_secret(document: dict[str, Any]) -> None:
    assert original_of({"metadata": {"name": "registry"}, **document}) is None


def test_a_secret_that_we_derived_is_no_original() -> None:
    made = derive(original("reg.example.com"), ["reg.example.com"])
    assert original_of(made) is None


def test_a_derived_secret_says_whose_it_is_and_goes_with_its_original() -> None:
    made = derive(original("reg.example.com"), ["reg.example.com"])
    metadata = made["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("darner-registry", "shop")
    assert metadata["labels"] == {"app.kubernetes.io/managed-by": "darner", DERIVED_FROM: "registry"}
    assert metadata["ownerReferences"] == [{"apiVersion": "v1", "kind": "Secret", "name": "registry", "uid": "u-1"}]
    assert registries_of(metadata) == {"reg.example.com"}
    assert derived_from(metadata) == "registry"


def test_the_same_original_and_registries_give_the_same_secret() -> None:
    source = original("a.example.com", "b.example.com")
    made = derive(source, ["b.example.com", "a.example.com", "b.example.com"])
    assert made == derive(source, ["a.example.com", "b.example.com"])
    assert derive(source, registries_of(made["metadata"]), made) == made


def test_what_others_have_put_on_a_derived_secret_stays_when_it_is_brought_in_step() -> None:
    found = derive(original("reg.example.com"), ["reg.example.com"])
    found["metadata"] |= {"resourceVersion": "9", "uid": "u-9"}
    found["metadata"]["labels"]["team"] = "web"
    found["metadata"]["annotations"]["note"] = "kept"
    again = derive(original("reg.example.com", uid="u-2"), ["reg.example.com"], found)
    assert again["metadata"]["labels"]["team"] == "web"
    assert again["metadata"]["annotations"]["note"] == "kept"
    assert again["metadata"]["resourceVersion"] == "9"
    assert again["metadata"]["ownerReferences"][0]["uid"] == "u-2"


def test_a_name_that_would_be_too_long_is_cut_and_stays_apart_from_others() -> None:
    assert derived_name("registry") == "darner-registry"
    assert derived_name("a" * 246) == "darner-" + "a" * 246
    longest = [derived_name("a" * 252 + last) for last in "ab"]
    assert longest[0] != longest[1]
    assert {len(name) for name in longest} == {NAME_LENGTH_MAX}
    assert "-" in derived_name("a." * 126 + "a")[-12:]
    long = derive(original("reg.example.com", name="a" * 253), ["reg.example.com"])["metadata"]
    assert len(long["labels"][DERIVED_FROM]) == 63
    assert derived_from(long) == "a" * 253


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {}},
        {"labels": {"app.kubernetes.io/managed-by": "helm", DERIVED_FROM: "registry"}},
        {"labels": {"app.kubernetes.io/managed-by": "darner", DERIVED_FROM: "other"}},
        {"ownerReferences": []},
        {"ownerReferences": [{"kind": "Secret", "name": "other"}]},
        {"ownerReferences": [{"kind": "ConfigMap", "name": "registry"}]},
        {"ownerReferences": [{"kind": "Secret", "name": "registry"}] * 2},
        {"ownerReferences": "registry"},
        {"name": "registry"},
    ],
)
def test_a_secret_of_somebody_else_is_told_from_ours(change: dict[str, Any]) -> None:
    metadata = derive(original("reg.example.com"), ["reg.example.com"])["metadata"]
    assert derived_from(metadata | change) is None
    assert derived_from({}) is None


@pytest.mark.parametrize("text", ["", "nonsense", "7", "{}", "[7, null]", "[" * 100_000])
def test_registries_that_cannot_be_read_are_none(text: str) -> None:
    assert registries_of({"annotations": {"darner.dev/registries": text}}) == frozenset()


def test_a_pods_originals_are_told_from_what_it_has_been_given() -> None:
    assert originals_among(["a", "darner-a", "b", "darner-c"]) == ("a", "b", "darner-c")


def test_no_value_of_a_secret_is_in_what_is_printed_of_it() -> None:
    source = original("reg.example.com")
    assert "auth" not in repr(source)
    assert login("reg.example.com")["auth"] not in repr(source)
