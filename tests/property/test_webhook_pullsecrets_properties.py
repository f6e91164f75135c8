"""For any Docker configuration: the kubelet finds at the agent what it would have found at the origin, and nothing else."""

from __future__ import annotations

import base64
import json
from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from agent.values.reference import Reference, to_local
from tests.kubelet_keyring import auths_of, credentials_for
from webhook.pullsecrets.dockerconfig import _fits, derive, original_of, registries_with_credentials

HOSTS = (
    "docker.io index.docker.io reg.example.com reg.example.com.evil.org *.example.com r*g.example.com *.io reg.example.com:5000 "
    "*.example.com:5000 example.com localhost:5000 quay.io"
)
PATHS = "/ /v1/ /v2/ /v2/team /team /team/ /team/app /library /v1/library/nginx"
IMAGES = (
    "nginx team/app reg.example.com/team/app reg.example.com/teams/app reg.example.com:5000/team/app example.com/app "
    "reg.example.com.evil.org/team/app localhost:5000/app quay.io/team/app other.io/team/app"
)
locations = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "https://", "http://"]),
    st.sampled_from(HOSTS.split()),
    st.sampled_from(["", *PATHS.split()]),
)
images = st.sampled_from(IMAGES.split())


@given(st.text("ab", max_size=8), st.text("ab*", max_size=8))
def test_a_pattern_with_stars_means_what_it_means_to_the_kubelet(name: str, pattern: str) -> None:
    assert _fits(name, pattern) == fnmatchcase(name, pattern)


@given(st.lists(locations, max_size=6, unique=True), st.lists(images, min_size=1, max_size=4, unique=True), images)
def test_the_kubelet_finds_at_the_agent_what_it_would_have_found_at_the_origin(
    keys: list[str], asked: list[str], other: str
) -> None:
    auths = {key: {"auth": key} for key in keys}
    data = {".dockerconfigjson": base64.b64encode(json.dumps({"auths": auths}).encode()).decode()}
    secret = {"type": "kubernetes.io/dockerconfigjson", "metadata": {"name": "a", "namespace": "b"}, "data": data}
    original = original_of(secret)
    assert original
    registries = {Reference.parse(image).registry for image in asked}
    copied = auths_of(derive(original, registries))
    assert all(entry in auths.values() for entry in copied.values())
    for image in [*asked, other]:
        reference = Reference.parse(image)
        before = {entry["auth"] for entry in credentials_for(auths, image)}
        after = {entry["auth"] for entry in credentials_for(copied, to_local(image))}
        if reference.registry not in registries:
            assert after == set()
            continue
        assert bool(after) <= bool(registries_with_credentials(original, {reference.registry}))
        # Where Docker Hub has a credential for a part, that of its index is for the rest, and is tried after it.
        fallback = {key for key in keys if "index.docker.io" in key} if reference.registry == "docker.io" else set()
        assert after <= before | fallback
        assert before <= after or len(before) > 3
