"""Names of images, for every name: the local name is one inverse pair with the original, and nothing else ever escapes."""

from __future__ import annotations

import re
import string

from hypothesis import given
from hypothesis import strategies as st

from agent.values.reference import (
    InvalidReference,
    Reference,
    component_of,
    from_local,
    is_local,
    origin_of,
    parse_digest,
    parse_tag,
    registry_of,
    to_local,
)

_ALNUM = string.ascii_lowercase + string.digits

labels = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,10}[A-Za-z0-9])?", fullmatch=True)
ports = st.integers(1, 65535).map(lambda port: f":{port}") | st.just("")
hosts = st.builds(lambda parts, port: ".".join(parts) + port, st.lists(labels, min_size=2, max_size=4), ports)
bare_hosts = st.builds(lambda label, port: label + port, labels, st.integers(1, 65535).map(lambda port: f":{port}"))
special_hosts = st.sampled_from(
    ["docker.io", "index.docker.io", "localhost", "localhost:5000", "HOST", "Quay.io", "10.0.0.7:5000"]
)
registries = hosts | bare_hosts | special_hosts
parts = st.lists(st.text(_ALNUM, min_size=1, max_size=8), min_size=1, max_size=3).flatmap(
    lambda words: st.sampled_from(["-", ".", "_", "__", "---"]).map(lambda separator: separator.join(words))
)
repositories = st.lists(parts, min_size=1, max_size=4).map("/".join)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}", fullmatch=True)
digests = st.text("0123456789abcdef", min_size=64, max_size=64).map(lambda digits: f"sha256:{digits}")


@st.composite
def names(draw: st.DrawFn) -> str:
    """A valid name of an image, written in any of the ways that a pod's author may write it."""
    registry = draw(st.none() | registries)
    text = (f"{registry}/" if registry else "") + draw(repositories)
    if draw(st.booleans()):
        text += ":" + draw(tags)
    if draw(st.booleans()):
        text += "@" + draw(digests)
    return text


# Texts that are nearly names find more than texts from the whole of Unicode do.
near_names = st.text(st.sampled_from("aA0.-_/:@[]\n%\\ é") | st.characters(), max_size=60) | names().flatmap(
    lambda name: st.tuples(st.integers(0, len(name)), st.characters()).map(lambda at: name[: at[0]] + at[1] + name[at[0] :])
)


@given(names())
def test_the_local_name_names_the_same_image(name: str) -> None:
    local = to_local(name)
    assert is_local(local)
    assert Reference.parse(from_local(local)) == Reference.parse(name)
    assert to_local(from_local(local)) == local


@given(names())
def test_a_local_name_is_itself_a_valid_name_and_stays(name: str) -> None:
    local = to_local(name)
    assert str(Reference.parse(local)) == local
    assert to_local(local) == local


@given(names())
def test_tag_and_digest_are_kept_as_they_are_and_none_is_added(name: str) -> None:
    tail = re.compile(r"(:[^/@:]+)?(@.*)?$")
    assert tail.search(to_local(name)).group(0) == tail.search(name).group(0)  # type: ignore[union-attr]


@given(names())
def test_a_name_in_canonical_form_is_read_as_the_same_reference(name: str) -> None:
    reference = Reference.parse(name)
    assert Reference.parse(str(reference)) == reference
    assert str(Reference.parse(str(reference))) == str(reference)


@given(near_names)
def test_reading_any_text_raises_nothing_but_our_own_error(text: str) -> None:
    for read in (Reference.parse, to_local, from_local, origin_of, registry_of, component_of, parse_tag, parse_digest):
        message = ""
        try:
            read(text)
        except InvalidReference as refused:
            message = str(refused)
        assert message.isprintable()


@given(near_names)
def test_whatever_is_accepted_survives_the_round_trip(text: str) -> None:
    try:
        local = to_local(text)
    except InvalidReference:
        return
    assert local.isascii()
    if not is_local(text):
        assert Reference.parse(from_local(local)) == Reference.parse(text)


@given(registries)
def test_registry_and_path_component_are_inverse(registry: str) -> None:
    component = component_of(registry)
    assert re.fullmatch(r"[a-z0-9._-]+", component)
    assert component_of(registry_of(component)) == component_of(registry.lower().replace("index.docker.io", "docker.io"))


@given(st.from_regex(r"[a-z0-9._-]{1,30}/[a-z0-9._/-]{1,30}", fullmatch=True))
def test_whatever_repository_the_agent_accepts_has_a_local_name_that_leads_back(path: str) -> None:
    try:
        registry, repository = origin_of(path)
    except InvalidReference:
        return
    local = Reference(registry, repository).local
    assert origin_of(local.partition("/")[2]) == (registry, repository)
