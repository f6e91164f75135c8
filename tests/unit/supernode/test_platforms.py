"""Which manifests of an index are for the machines of a pod."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.values.manifest import Manifest
from supernode.platforms import manifests_for

INDEX = "application/vnd.oci.image.index.v1+json"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def index(*entries: Any) -> Manifest:
    return Manifest.of(INDEX, json.dumps({"schemaVersion": 2, "manifests": entries}).encode())


def entry(number: int, architecture: str = "amd64", system: str = "linux", **more: Any) -> dict[str, Any]:
    return {"digest": digest(number), "size": 7, "platform": {"os": system, "architecture": architecture}, **more}


def test_those_for_linux_on_the_machines_are_named_in_their_order_and_once() -> None:
    found = index(entry(3, "arm64"), entry(1), entry(2, "s390x"), entry(1), entry(4, "arm"), entry(5, "arm"))
    assert manifests_for(found, ["amd64", "arm64"]) == [digest(3), digest(1)]
    assert manifests_for(found, ["arm"]) == [digest(4), digest(5)], "both variants"
    assert manifests_for(found, []) == []


def test_what_attests_an_image_and_what_is_for_windows_is_none_of_them() -> None:
    found = index(entry(1, "unknown", "unknown"), entry(2, "amd64", "windows"), {"digest": digest(3)})
    assert manifests_for(found, ["amd64", "unknown"]) == []


@pytest.mark.parametrize(
    "entries",
    [
        [{"platform": {"os": "linux", "architecture": "amd64"}}],
        [entry(1) | {"digest": "sha512:" + "0" * 128}],
        [entry(1) | {"digest": "../../etc"}],
        [entry(1) | {"digest": None}],
        [entry(1) | {"platform": None}],
        [entry(1) | {"platform": []}],
        [7],
    ],
)
def test_an_entry_that_names_nothing_leads_nowhere(entries: list[Any]) -> None:
    assert manifests_for(index(*entries), ["amd64"]) == []


def test_what_is_no_index_has_none() -> None:
    for body in (b"", b"{}", b"[]", b'{"manifests": null}'):
        assert manifests_for(Manifest.of(INDEX, body), ["amd64"]) == []
