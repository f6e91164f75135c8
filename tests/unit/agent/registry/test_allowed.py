"""`--allow-registries`: what is not allowed is refused by the origin's name, however it is spelled, and nobody is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.values.pattern import allowed, pattern
from hack.origin import Origin
from tests.endpoint import DIGEST, LAYER, Endpoint, push


def test_an_image_of_an_allowed_repository_is_pulled(tmp_path: Path) -> None:
    with Origin() as origin, Endpoint(tmp_path / "store", origin, allow=(pattern("127.0.0.1:*/team/*"),)) as endpoint:
        push(origin)
        assert endpoint.ask("manifests/1").status == 200
        assert endpoint.ask(f"blobs/{DIGEST}").body == LAYER


@pytest.mark.parametrize("what", ["manifests/1", f"blobs/{DIGEST}", "tags/list", f"referrers/{DIGEST}"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_is_not_allowed_is_denied_before_anybody_is_asked(tmp_path: Path, what: str, method: str) -> None:
    with Origin() as origin, Endpoint(tmp_path / "store", origin, allow=(pattern("registry.example.com"),)) as endpoint:
        push(origin)
        answer = endpoint.ask(what, method)
        assert answer.status == 403
        if method == "GET":
            assert answer.code == "DENIED"
            assert answer.message == f"{origin.address}/team/app is not among --allow-registries, from which nodes pull"
        assert origin.requests == []


@pytest.mark.parametrize(
    "target",
    [
        "/v2/docker.io/library/nginx/manifests/1",
        "/v2/index.docker.io/library/nginx/manifests/1",
        "/v2/docker.io/nginx/manifests/1",
        "/v2/library/nginx/manifests/1?ns=docker.io",
        "/v2/registry.example.com/x/manifests/1?ns=docker.io",
    ],
)
def test_no_spelling_gets_around_it(tmp_path: Path, target: str) -> None:
    with Origin() as origin, Endpoint(tmp_path / "store", origin, allow=(pattern("registry.example.com"),)) as endpoint:
        answer = endpoint.ask(target)
        assert (answer.status, answer.code) == (403, "DENIED")
        assert answer.message.startswith("docker.io/")


def test_everybody_is_allowed_who_is_not_listed_away() -> None:
    assert allowed((), "quay.io", "a/b")
    listed = (pattern("*.example.com"), pattern("docker.io/library/*"))
    assert allowed(listed, "eu.example.com", "a")
    assert allowed(listed, "docker.io", "library/nginx")
    assert not allowed(listed, "docker.io", "team/app")
    assert not allowed(listed, "example.com.evil.test", "library/nginx")
