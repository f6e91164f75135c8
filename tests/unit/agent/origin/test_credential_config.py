"""The kubelet's credential providers on paper: which images they are for, what they say, how long it is good, in which order."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.origin.credential_config import (
    ANSWERS_MAX,
    CREDENTIALS_MAX,
    PULL_SECONDS,
    Answers,
    Provider,
    ProviderAnswer,
    ProviderError,
    in_order,
    matches,
    parse_answer,
    parse_config,
    seconds_of,
)
from agent.values.credential import Credential
from tests import kubelet_keyring

V1 = "credentialprovider.kubelet.k8s.io/v1"
PROVIDER = Provider("cloud", V1, ("*.example.com",), (), {}, 3600.0)
ALICE, BOB, CAROL = (Credential(name, "secret") for name in ("alice", "bob", "carol"))


def config(**provider: Any) -> bytes:
    """One that a kubelet would start with, but for what is given; None takes a member away."""
    whole = {"name": "cloud", "apiVersion": V1, "matchImages": ["*.example.com"], "defaultCacheDuration": "12h"} | provider
    members = {key: value for key, value in whole.items() if value is not None}
    text = {"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [members]}
    return json.dumps(text).encode()


def answer(**changed: Any) -> bytes:
    whole = {"kind": "CredentialProviderResponse", "apiVersion": V1, "cacheKeyType": "Image"} | changed
    return json.dumps({key: value for key, value in whole.items() if value is not None}).encode()


@pytest.mark.parametrize(
    ("glob", "image"),
    [
        ("registry.example.com", "registry.example.com/foo/bar"),
        ("registry.example.com/foo/bar", "registry.example.com/foo/bar"),
        ("registry.example.com", "registry.example.com"),
        ("registry.example.com/", "registry.example.com/foo"),
        ("registry.example.com/fo", "registry.example.com/foo"),
        ("*.example.com:8080", "test.example.com:8080/foo"),
        ("*.*.example.com", "foo.bar.example.com/foo/bar"),
        ("*.example.com", "test.example.com/a"),
        ("registry.*.com", "registry.example.com/a"),
        ("registry.example.*", "registry.example.com/a"),
        ("app*.example.com", "app7.example.com/a"),
        ("*-docker.example.dev", "europe-west1-docker.example.dev/a/b"),
        ("12*89.ecr.*.cloud.example", "123456789.ecr.us-east-1.cloud.example/a"),
        ("docker.io", "docker.io/library/nginx"),
        ("127.0.0.1:5000", "127.0.0.1:5000/a"),
        ("[::1]:5000", "[::1]:5000/a"),
        ("user@registry.example.com", "registry.example.com/a"),
    ],
)
def test_an_image_that_the_kubelet_asks_about_is_asked_about(glob: str, image: str) -> None:
    assert matches(glob, image)


@pytest.mark.parametrize(
    ("glob", "image"),
    [
        ("*.example.com", "example.com/a"),
        ("*.example.com", "a.b.example.com/a"),
        ("*.com", "registry.example.com/a"),
        ("*", "registry.example.com/a"),
        ("registry.example.com", "registry.example.com.evil.org/a"),
        ("registry.example.com", "registry.example.com:5000/a"),
        ("registry.example.com:5000", "registry.example.com/a"),
        ("registry.example.com:*", "registry.example.com:5000/a"),
        ("registry.example.com/*/b", "registry.example.com/a/b"),
        ("registry.example.com/b", "registry.example.com/a/b"),
        ("app*x.example.com", "appx7.example.com/a"),
        ("a*a.example.com", "a.example.com/a"),
        ("regist?y.example.com", "registry.example.com/a"),
        ("[r]egistry.example.com", "registry.example.com/a"),
        ("https://registry.example.com", "registry.example.com/a"),
        ("", "registry.example.com/a"),
    ],
)
def test_another_one_is_not(glob: str, image: str) -> None:
    assert not matches(glob, image)


HOST = st.lists(st.text("a*", min_size=1, max_size=4), min_size=1, max_size=3).map(".".join)
PATH = st.sampled_from(["", "/a", "/a/b", "/ab"])


@given(HOST, st.sampled_from(["", ":1", ":2"]), PATH, HOST, st.sampled_from(["", ":1"]), PATH)
def test_the_verdict_is_that_of_the_kubelets_own_rules(
    host: str, port: str, path: str, name: str, number: str, rest: str
) -> None:
    glob, image = host + port + path, name.replace("*", "b") + number + rest
    assert matches(glob, image) == bool(kubelet_keyring._matches(glob, image))


def test_a_key_that_was_made_to_take_long_takes_no_time() -> None:
    began = time.monotonic()
    assert not matches("*a" * 50_000 + "b.example.com", "a" * 50_000 + ".example.com/a")
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12h", 43200.0), ("1h30m", 5400.0), ("0s", 0.0), ("0", 0.0), ("1.5s", 1.5), (".5m", 30.0), ("250ms", 0.25), ("-1s", -1.0)],
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "12", "h", "1d", "1 h", "1h ", "+-1s", "1e3s", "1" * 70 + "s", "."])
def test_what_go_does_not_read_is_no_duration(text: str) -> None:
    assert seconds_of(text) is None


def test_the_kubelets_configuration_is_read_in_json_and_in_yaml() -> None:
    written = b"""
# as some nodes have it
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: cloud
    matchImages: ["*.example.com", "registry.example.org:5000/team"]
    defaultCacheDuration: 12h
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args: [get-credentials, --v=3]
    env:
      - {name: REGION, value: north}
"""
    ((provider,), refused) = parse_config(written)
    assert not refused
    assert provider.match_images == ("*.example.com", "registry.example.org:5000/team")
    assert (provider.args, dict(provider.environment)) == (("get-credentials", "--v=3"), {"REGION": "north"})
    assert provider.cache_seconds == 43200.0
    assert parse_config(config()) == ([Provider("cloud", V1, ("*.example.com",), (), {}, 43200.0)], [])


def test_a_provider_that_wants_a_service_accounts_token_is_told_from_those_that_can_be_used() -> None:
    """FAULTS 76."""
    attributes = {"serviceAccountTokenAudience": "cloud", "requireServiceAccount": True, "cacheType": "Token"}
    assert parse_config(config(tokenAttributes=attributes)) == ([], ["cloud"])
    assert parse_config(config(tokenAttributes=None))[1] == []


@pytest.mark.parametrize(
    "text",
    [
        config(name="../sh"),
        config(name=".."),
        config(name=""),
        config(name="a b"),
        config(apiVersion="credentialprovider.kubelet.k8s.io/v2"),
        config(apiVersion=None),
        config(matchImages=[]),
        config(matchImages=None),
        config(defaultCacheDuration=None),
        config(defaultCacheDuration="-1s"),
        config(defaultCacheDuration="often"),
        config(args="--all"),
        config().replace(b"CredentialProviderConfig", b"KubeletConfiguration"),
        config().replace(b"kubelet.config.k8s.io", b"example.com"),
        b"",
        b"[]",
        b"a: [",
        b"\xff\xfe\x00",
        b"a: !!python/object/apply:os.system [true]",
        b"a: 2026-13-45",
        b'providers: !!int ""',
        b"providers: !!timestamp soon",
        b"providers: !!bool perhaps",
    ],
)
def test_a_configuration_with_which_no_kubelet_starts_is_refused_in_one_line(text: bytes) -> None:
    with pytest.raises(ProviderError) as refused:
        parse_config(text)
    assert "\n" not in str(refused.value)


def test_what_is_wrong_in_a_configuration_is_told_without_showing_it() -> None:
    with pytest.raises(ProviderError, match="line 2") as refused:
        parse_config(b"env: [{name: TOKEN, value: s3cret}\nx: s3cret: s3cret")
    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in repr(Provider("cloud", V1, (), (), {"TOKEN": "s3cret"}, 0.0))


def test_the_question_is_the_kubelets() -> None:
    asked = json.loads(PROVIDER.question("registry.example.com/team/app"))
    assert asked == {"kind": "CredentialProviderRequest", "apiVersion": V1, "image": "registry.example.com/team/app"}


def test_an_answer_says_for_which_images_and_how_long_its_credentials_are() -> None:
    auth = {"*.example.com": {"username": "alice", "password": "secret"}, "empty": {"username": "", "password": ""}, "null": None}
    said = parse_answer(PROVIDER, answer(auth=auth, cacheKeyType="Registry", cacheDuration="5m"))
    assert said == ProviderAnswer({"*.example.com": ALICE}, "Registry", 300.0)
    assert "secret" not in repr(said)
    assert "alice" not in repr(said)


def test_an_answer_without_a_duration_has_the_configurations_and_null_says_that_there_are_no_credentials() -> None:
    assert parse_answer(PROVIDER, answer(auth=None)) == ProviderAnswer({}, "Image", 3600.0)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"garbage",
        b"null",
        b"[" * 100_000,
        b'{"kind":"CredentialProviderResponse"}',
        answer(kind="CredentialProviderRequest"),
        answer(apiVersion="credentialprovider.kubelet.k8s.io/v1beta1"),
        answer(cacheKeyType="Cluster"),
        answer(cacheKeyType=None),
        answer(cacheDuration="long"),
        answer(auth=["s3cret"]),
        answer(auth={"a": {"username": 1}}),
        answer(auth={"a": {"password": "\ud800"}}),
        b"s3cret",
    ],
)
def test_what_is_no_answer_is_refused_and_not_shown(output: bytes) -> None:
    """FAULTS 76."""
    with pytest.raises(ProviderError) as refused:
        parse_answer(PROVIDER, output)
    assert "s3cret" not in str(refused.value)


def test_an_answer_for_an_image_is_good_for_that_image_while_it_lasts() -> None:
    """FAULTS 76."""
    answers = Answers()
    answers.keep("a.example.com/x", ProviderAnswer({"k": ALICE}, "Image", 300.0), now=1000.0)
    assert answers.find("a.example.com/x", 1300.0) == {"k": ALICE}
    assert answers.find("a.example.com/x", 1300.1) is None
    assert answers.find("a.example.com/y", 1000.0) is None


def test_one_for_a_registry_is_good_for_its_images_and_a_global_one_for_all() -> None:
    """FAULTS 76."""
    answers = Answers()
    answers.keep("a.example.com:5000/x", ProviderAnswer({"k": ALICE}, "Registry", 300.0), now=0.0)
    assert answers.find("a.example.com:5000/y/z", 300.0) == {"k": ALICE}
    assert answers.find("a.example.com/x", 0.0) is None
    answers.keep("b.example.com/x", ProviderAnswer({"k": BOB}, "Global", 600.0), now=0.0)
    assert answers.find("a.example.com:5000/y/z", 300.0) == {"k": ALICE}
    assert answers.find("a.example.com:5000/y/z", 301.0) == {"k": BOB}
    assert answers.find("c.example.com/x", 600.1) is None


@pytest.mark.parametrize("scope", ["Image", "Registry", "Global"])
def test_one_that_may_not_be_kept_serves_the_requests_of_one_pull_and_no_other_image(scope: str) -> None:
    """FAULTS 76: the kubelet asks once a pull, however many requests that is here."""
    answers = Answers()
    answers.keep("a.example.com/x", ProviderAnswer({"k": ALICE}, scope, 0.0), now=0.0)
    assert answers.find("a.example.com/x", PULL_SECONDS) == {"k": ALICE}
    assert answers.find("a.example.com/x", PULL_SECONDS + 0.1) is None
    assert answers.find("a.example.com/y", 0.0) is None


def test_the_oldest_answers_are_forgotten_first_when_there_are_too_many() -> None:
    answers = Answers()
    for number in range(ANSWERS_MAX + 1):
        answers.keep(f"a.example.com/{number}", ProviderAnswer({}, "Image", 300.0), now=0.0)
    assert answers.find("a.example.com/0", 0.0) is None
    assert answers.find("a.example.com/1", 0.0) == {}


def test_the_most_specific_key_comes_first_and_labels_before_stars() -> None:
    """FAULTS 76."""
    said = {
        "*.example.com": CAROL,
        "a.example.com": BOB,
        "https://a.example.com/v2/team": ALICE,
        "b.example.com": Credential("x", "y"),
    }
    assert in_order("a.example.com/team/app", [said]) == [ALICE, BOB, CAROL]
    assert in_order("a.example.com/other", [said]) == [BOB, CAROL]


def test_under_one_key_the_provider_that_the_configuration_names_first_comes_first() -> None:
    """FAULTS 76."""
    first, second = {"a.example.com": BOB}, {"http://a.example.com/": ALICE, "a.example.com/team": CAROL}
    assert in_order("a.example.com/team/app", [first, second]) == [CAROL, BOB, ALICE]
    assert in_order("a.example.com/x", [second, first, second]) == [ALICE, BOB]


def test_docker_hub_has_its_old_key_as_far_as_there_is_no_other() -> None:
    old = {"https://index.docker.io/v1/": ALICE}
    assert in_order("docker.io/library/nginx", [old]) == [ALICE]
    assert in_order("docker.io/library/nginx", [old, {"docker.io": BOB}]) == [BOB]
    assert in_order("a.example.com/x", [old]) == []


@given(st.dictionaries(st.tuples(HOST, st.sampled_from(["", ":1"]), PATH).map("".join), st.sampled_from("abcdef"), max_size=6))
def test_the_order_is_that_of_the_kubelets_keyring(auths: dict[str, str]) -> None:
    image = "a.example.com/a/b" if "." in "".join(auths) else "a.a/a/b"
    expected = list(dict.fromkeys(kubelet_keyring.credentials_for(auths, image)))
    said = {key: Credential(name, "secret") for key, name in auths.items()}
    assert [credential.username for credential in in_order(image, [said])] == expected


def test_a_provider_cannot_make_the_node_try_without_end() -> None:
    many = {f"a.example.com/{'x' * number}": Credential(str(number), "x") for number in range(100)}
    assert len(in_order(f"a.example.com/{'x' * 100}", [many])) == CREDENTIALS_MAX
