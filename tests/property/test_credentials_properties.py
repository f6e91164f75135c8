"""Credentials and challenges of any content: they come back, are bounded, and reach nobody that they are not for."""

from __future__ import annotations

import re
import string

from hypothesis import given
from hypothesis import strategies as st

from agent.origin.realm import realm_belongs
from agent.values.credential import Challenge, Credential, from_authorization, parse_challenge
from agent.values.errors import RequestError

names = st.text(st.characters(codec="utf-8", exclude_characters=":"), max_size=60)
passwords = st.text(st.characters(codec="utf-8"), max_size=200)
values = st.text(string.printable.replace("\n", ""), max_size=40)
labels = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=8)
hosts = st.lists(labels, min_size=1, max_size=4).map(".".join)


@given(names, passwords)
def test_a_credential_comes_back_from_its_header(username: str, password: str) -> None:
    credential = Credential(username, password)
    assert from_authorization(credential.header) == credential


@given(st.text(max_size=100) | st.text(max_size=100).map("Basic {}".format))
def test_whatever_is_sent_is_a_credential_or_refused_without_being_repeated(header: str) -> None:
    try:
        credential = from_authorization(header)
    except RequestError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert credential is not None
    assert refusal in ("", "send Basic credentials, or none")


@given(values, values, values)
def test_the_parameters_of_a_challenge_come_back_from_their_quotes(path: str, service: str, scope: str) -> None:
    fields = {"realm": "https://auth.example.com/" + path, "service": service, "scope": scope}
    quoted = (name + '="' + re.sub(r'(["\\])', r"\\\1", value) + '"' for name, value in fields.items())
    assert parse_challenge("Bearer " + ",".join(quoted)) == Challenge("bearer", **fields)


@given(st.text(max_size=300) | st.text('Bearer asic=",\\ ', max_size=300))
def test_whatever_a_registry_sends_is_a_challenge_or_none(header: str) -> None:
    challenge = parse_challenge(header)
    assert challenge is None or challenge.scheme == "basic" or (challenge.scheme == "bearer" and challenge.realm)


@given(hosts, hosts)
def test_credentials_reach_only_hosts_that_share_two_labels_with_the_registry(realm: str, registry: str) -> None:
    if realm_belongs(realm, registry):
        assert realm == registry or realm.split(".")[-2:] == registry.split(".")[-2:]


@given(labels, labels, labels)
def test_a_stranger_under_the_same_top_level_gets_nothing(stranger: str, owner: str, top: str) -> None:
    assert realm_belongs(f"{stranger}.{top}", f"{owner}.{top}") == (stranger == owner)
