"""Targets and ranges of any content: a value or an OCI error, and what the webhook wrote leads back to its image."""

from __future__ import annotations

import re
from urllib.parse import quote

from hypothesis import assume, given
from hypothesis import strategies as st

from agent.registry.target import BlobResource, ManifestResource, Resource, parse_range, parse_target
from agent.values.errors import DarnerError, RequestError
from agent.values.reference import InvalidReference, Reference, parse_digest, to_local
from tests.property.test_reference_properties import names

HEX = "0123456789abcdef"
SIZE_MAX = 1 << 40

places = st.integers(0, 2 * SIZE_MAX) | st.integers(0, 1 << 70)
digests = st.text(HEX, min_size=64, max_size=64).map("sha256:{}".format)
pieces_of_targets = st.sampled_from(
    [
        *"/.:%?&=@_- \\",
        "//",
        "..",
        "%2e",
        "%00",
        "v2",
        "docker.io",
        "a",
        "manifests",
        "blobs",
        "tags/list",
        "ns=",
        "sha256:",
        "\n",
    ]
)
near_targets = st.lists(pieces_of_targets, max_size=12).map("".join).map("/v2/{}".format)


def local_repository(name: str) -> str:
    """What a runtime asks the agent for, given the rewritten name."""
    try:
        return Reference.parse(to_local(name)).repository
    except InvalidReference:  # an IPv6 address, or too long: the webhook leaves it alone
        assume(False)
        raise


@given(names())
def test_a_rewritten_name_leads_to_the_manifest_of_its_image(name: str) -> None:
    image = Reference.parse(name)
    reference = image.digest or image.tag or "latest"
    target = f"/v2/{local_repository(name)}/manifests/{reference}"
    assert parse_target(target) == ManifestResource(image.registry, image.repository, reference)


@given(names(), digests)
def test_a_rewritten_name_leads_to_the_blobs_of_its_repository(name: str, digest: str) -> None:
    image = Reference.parse(name)
    target = f"/v2/{local_repository(name)}/blobs/{digest}"
    assert parse_target(target) == BlobResource(image.registry, image.repository, parse_digest(digest))


@given(names(), digests)
def test_as_a_mirror_the_agent_finds_the_same_image(name: str, digest: str) -> None:
    image = Reference.parse(name)
    target = f"/v2/{image.repository}/blobs/{digest}?ns={quote(image.registry)}"
    assert parse_target(target) == BlobResource(image.registry, image.repository, parse_digest(digest))


@given(st.text(max_size=200) | st.text(max_size=100).map("/v2/{}".format) | near_targets)
def test_every_target_is_a_plain_resource_or_an_error_of_the_clients(target: str) -> None:
    try:
        resource = parse_target(target)
    except DarnerError as error:
        said, status = str(error), error.status
    else:
        said, status = "", 400
        if isinstance(resource, Resource):
            assert re.fullmatch(r"[a-z0-9._/-]+", resource.repository)
            assert not {"", ".", ".."} & set(resource.repository.split("/"))
    assert status in (400, 404)
    assert said.isprintable()


def answer(header: str, size: int) -> tuple[int, int] | int | None:
    """The span that a Range asks for, None for the whole, or the status of what is answered instead."""
    try:
        return parse_range(header, size)
    except RequestError as error:
        return error.status


@given(st.integers(1, SIZE_MAX), places, places)
def test_a_range_is_what_slicing_would_give(size: int, first: int, last: int) -> None:
    for header, part in (
        (f"bytes={first}-{max(first, last)}", slice(first, max(first, last) + 1)),
        (f"bytes={first}-", slice(first, None)),
        (f"bytes=-{last}", slice(-last, None) if last else slice(size, None)),
    ):
        start, end, _ = part.indices(size)
        assert answer(header, size) == ((start, end) if start < end else 416)


@given(st.text("bytes=-,0123456789 ", max_size=40) | st.text(max_size=40), st.integers(0, 5000))
def test_every_range_is_within_the_blob_or_none_of_it(header: str, size: int) -> None:
    span = answer(header, size)
    assert span in (None, 416) or (isinstance(span, tuple) and 0 <= span[0] < span[1] <= size)
